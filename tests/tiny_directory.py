"""Hugging Face directories of small random models, made on the spot."""

import json
from pathlib import Path

import jax
import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from spare_jax.models import huggingface
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import init_decoder

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def random_qwen2(directory: Path, texts: list[str], max_length: int = 1024) -> Path:
    """A Qwen2 of two layers with a byte-level tokenizer trained on `texts`; its step tag is <extra_0>."""
    tokenizer = Tokenizer(models.BPE())
    words = Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    wrapped.chat_template = CHAT
    config = DecoderConfig(
        vocab_size=len(wrapped), hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2,
        head_dim=8, tie_embeddings=False, max_length=max_length, family="qwen2",
    )  # fmt: skip
    huggingface.save(directory, jax.jit(init_decoder, static_argnums=0)(config, jax.random.key(0)), config, wrapped)
    return directory


def gsm8k_files(directory: Path, count: int) -> Path:
    """A made-up data set in GSM8K's format: `count` train rows and as many test rows."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        rows = []
        for _ in range(count):
            a, b = (int(n) for n in rng.integers(2, 50, 2))
            rows.append(
                {
                    "question": f"In the {split} yard stand {a} carts. {b} more come. How many carts are there now?",
                    "answer": f"There are {a} + {b} = <<{a}+{b}={a + b}>>{a + b} carts.\nSo it is so.\n#### {a + b}",
                }
            )
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory
