"""Byte-level BPE tokenizers made on the spot: as small as can be, and with the habits of the large ones."""

import functools

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOS, EOS, USER = "<s>", "</s>", "<|user|>"
TAG = " ки"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|user|>{{ m.role }}: {{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant: {% endif %}"
)
TEXT = ["Ada has 5 + 3 = 8.\nBen has 8 apples.\n\nThe answer is 8.\n", "Ada has 7.\nThe answer is 7.\n", TAG]

# How words are cut before merging. "line_end": newlines stick to the punctuation before them, as in Llama 3 and
# Qwen; "words": as in GPT-2, a newline is always a token's whole text; "none": merges run across line ends.
SPLITS = {
    "line_end": Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"),
    "words": Regex(r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+"),
    "none": None,
}


@functools.cache
def small_tokenizer(split: str = "line_end", template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """A tokenizer with BOS (which its post-processor adds too), EOS, a turn marker, and " ки" as a single id."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if SPLITS[split] is None:
        tokenizer.pre_tokenizer = byte_level
    else:
        isolated = pre_tokenizers.Split(SPLITS[split], behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([isolated, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[BOS, EOS, USER],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 10, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS)
    fast.chat_template = template
    return fast
