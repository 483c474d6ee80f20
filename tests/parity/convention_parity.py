"""Each convention against torch, on small random models: what test_conventions.py asserts and docs/models.md shows.
`PYTHONPATH=.:tests python tests/parity/convention_parity.py` prints the table of docs/models.md.

A card is what the model's authors tell others to run, in our words: it joins strings where they do, and finds the
tags by their ids. Models, tokenizers and texts are made on the spot.
"""

import dataclasses
import functools
import json
import pathlib
import tempfile
from typing import Any

import safetensors.torch
import torch
import transformers
from small_tokenizer import SPLITS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from spare_jax.engines.local import LocalEngine
from spare_jax.judges import conventions
from spare_jax.judges.reward_model import RewardModelSettings
from spare_jax.models import huggingface
from spare_jax.programs import run
from spare_jax.records import Problem, Solution

QUESTION = "Ada has 5 apples and buys 3. How many does she have?"
STEPS = ("She begins with 5 apples.", "Then 5 + 3 = 8, not 5 - 3.", "The answer is 8.")
BEGIN, END, PAD, TAG = "<s>", "</s>", "<pad>", "<extra_0>"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn|>{{ m.role }}\n\n{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n\n{% endif %}"
)
SIZES = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=1024, initializer_range=0.3, tie_word_embeddings=False,
)  # fmt: skip
PSA_TAG = " \n\n\n\n\n"
REFERENCE = ("5 + 3 = 8.", "The answer is 8.")
CRITIQUE = 24  # tokens that a model which writes may write


@functools.cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """ "bytes": byte-level as Llama 3 and Qwen; "pieces": a blank before every text, as sentencepiece."""
    texts = [
        QUESTION,
        *STEPS,
        f"a ки\nb ки{PSA_TAG}c{PSA_TAG}d\n\ne",
        "1 + 2 - 3 + 4 - 5 + - Step 1: Step 2:",
        "yes\nno\nYes\nNo\n",
    ] * 20
    special = [BEGIN, END, PAD, "<|turn|>", TAG]
    tokenizer = Tokenizer(models.BPE())
    line_end = pre_tokenizers.Split("\n", "isolated")
    if kind == "bytes":
        words = pre_tokenizers.Split(SPLITS["line_end"], "isolated")
        alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence([words, alone]), decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    else:
        blanks = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([line_end, blanks])
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
        alphabet = sorted({*"".join(texts), "▁"})
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, 0)])
    pad = BEGIN if "<s>" in kind else PAD
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=pad)
    fast.chat_template = TEMPLATE
    return fast


def causal(family: str, words: Any) -> torch.nn.Module:
    """A random language model of a family."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(vocab_size=len(words), **SIZES)
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


# Cards: (torch model, tokenizer) -> scores of STEPS


def ids_of(words: Any, text: str, special: bool = True) -> list[int]:
    return words(text, add_special_tokens=special)["input_ids"]


def hidden(model: Any, ids: list[int]) -> torch.Tensor:
    return model.model(torch.tensor([ids])).last_hidden_state[0]


def columns(model: Any, ids: list[int], tag: int, labels: list[int]) -> list[float]:
    """Softmax over the logits of (wrong, right) wherever the tag stands."""
    logits = model(torch.tensor([ids])).logits[0][:, labels]
    return logits.softmax(-1)[:, 1][torch.tensor(ids) == tag].tolist()


def spare(model, words):
    answer = "Let's think step by step.\n" + "".join(f"{step} ки\n" for step in STEPS)
    messages = [
        {"role": "system", "content": conventions.SPARE_MATH},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": answer},
    ]
    ids = words.apply_chat_template(messages, return_dict=False)
    labels = words.convert_tokens_to_ids(["-", "+"])
    return columns(model, ids, words.encode(" ки")[-1], labels)


def math_shepherd(model, words):
    text = f"{QUESTION} " + "".join(f"{step} ки\n" for step in STEPS)
    right, wrong = words.encode("+ -")[1:]
    return columns(model, words.encode(text), words.encode("ки")[-1], [wrong, right])


def math_psa(model, words):
    text = f"{QUESTION} " + "".join(step + PSA_TAG for step in STEPS)
    right, wrong = words.encode(" + -")[1:]
    return columns(model, words.encode(text), words.encode(PSA_TAG)[-1], [wrong, right])


def rlhflow(model, words):
    right, wrong = words.encode("+")[-1], words.encode("-")[-1]
    turns, found = [], []
    for number, step in enumerate(STEPS):
        turns.append({"role": "user", "content": step if number else f"{QUESTION} {step}"})
        turns.append({"role": "assistant", "content": "+"})
        ids = words.apply_chat_template(turns, return_dict=False)
        found.append(model(torch.tensor([ids])).logits[0, -3, [right, wrong]].softmax(-1)[0].item())
    return found


def qwen_math_prm(model, words):
    messages = [
        {"role": "system", "content": "Please reason step by step, and put your final answer within \\boxed{}."},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "".join(step + TAG for step in STEPS)},
    ]
    ids = words.apply_chat_template(messages, return_dict=False)
    classes = model.score(hidden(model, ids)).softmax(-1)
    return classes[torch.tensor(ids) == words.encode(TAG)[-1], 1].tolist()


def skywork(model, words):
    ids, at = ids_of(words, BEGIN + QUESTION + "\n", special=False), []
    for step in STEPS:
        ids += [*ids_of(words, step, special=False), words.encode("\n")[-1]]
        at.append(len(ids) - 1)
    return model.v_head.summary(hidden(model, ids))[at, 0].sigmoid().tolist()


def pure(model, words):
    ids, at = ids_of(words, QUESTION, special=False), []
    for step in STEPS:
        ids += ids_of(words, step, special=False) + ids_of(words, "\n\n", special=False)
        at.append(len(ids) - 1)
    classes = model(torch.tensor([ids])).logits[0, at].softmax(-1)
    return (classes[:, 1] - classes[:, 0]).tolist()


def trl(model, words):
    ids, at = ids_of(words, QUESTION), []
    for step in STEPS:
        ids += ids_of(words, step, special=False) + ids_of(words, "\n", special=False)
        at.append(len(ids) - 1)
    return model(torch.tensor([ids])).logits[0, at].softmax(-1)[:, 1].tolist()


def reason_eval(model, words, begin_is_a_separator: bool):
    """The 7B model pads with its BOS, so that every BOS is a separator: it is dropped, and put back at the front."""
    pad = words.pad_token
    text = f"Question:\n{QUESTION}\nAnswer:\nLet's think step by step.\n{pad}" + "".join(s + pad for s in STEPS)
    ids, at = [], []
    for token in words.encode(text):
        if token == words.pad_token_id:
            at.append(len(ids) - 1)
        else:
            ids.append(token)
    ids = [words.bos_token_id, *ids] if begin_is_a_separator else ids
    classes = model.score_head(hidden(model, ids))[at[1 + begin_is_a_separator :]].softmax(-1)
    return (classes[:, 1] + classes[:, 2]).tolist()


def reason_eval_7b(model, words):
    return reason_eval(model, words, begin_is_a_separator=True)


def reason_eval_34b(model, words):
    return reason_eval(model, words, begin_is_a_separator=False)


def universal_prm(model, words):
    query = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": f"{QUESTION}\n\n###\n\nThe reference answer is: {chr(10).join(REFERENCE)}"},
    ]
    prompt, found = words.apply_chat_template(query, add_generation_prompt=True, return_dict=False), []
    for k in range(1, len(STEPS) + 1):
        answer = ids_of(words, "\n\n".join(STEPS[:k]) + "\n\n", special=False)  # its tokenizer adds none
        states = hidden(model, [*prompt, *answer, words.eos_token_id])
        found.append(model.score(states)[-1, 0].sigmoid().item())
    return found


def written(model, words, ids: list[int]) -> list[int]:
    """What the model writes behind `ids`, greedily."""
    tokens = torch.tensor([ids])
    out = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=CRITIQUE, do_sample=False,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    return [token for token in out[0, len(ids) :].tolist() if token != words.eos_token_id]


def decision(model, words, ids: list[int], answers: tuple[str, str]) -> float:
    """The softmax over (no, yes) behind `ids`, of yes."""
    labels = [words.encode(answer, add_special_tokens=False)[0] for answer in answers]
    return model(torch.tensor([ids])).logits[0, -1, labels].softmax(-1)[1].item()


def think_prm(model, words):
    solution = "\n".join(f"Step {number}: {step}" for number, step in enumerate(STEPS, 1))
    content = (
        "You are given a math problem and a proposed step-by-step solution:\n\n[Math Problem]\n\n"
        + QUESTION + "\n\n[Solution]\n\n" + solution
        + "\n\nReview and critique each step in the proposed solution to determine whether each step is correct. "
        "If the solution is incomplete, only verify the provided steps."
    )  # fmt: skip
    ids = words.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, return_dict=False
    )
    ids += ids_of(words, "\nLet's verify step by step:", special=False)
    ids += written(model, words, ids) + ids_of(words, "\nIs the solution correct? ", special=False)
    return [None, None, decision(model, words, ids, ("no", "yes"))]


def gen_prm(model, words):
    turns = [
        {
            "role": "system",
            "content": "You are a math teacher. Your task is to review and critique the paragraphs in solution step by "
            "step.",
        }
    ]
    found = []
    for number, step in enumerate(STEPS, 1):
        turns.append({"role": "user", "content": step if found else f"{QUESTION}\n{step}"})
        begun = f"<analyze>\nLet's analyze the Paragraph {number} step by step: "
        ids = words.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        ids += ids_of(words, begun, special=False)
        critique = written(model, words, ids)
        forced = "</analyze>\n<output>\n**Judgement**: $\\boxed{"
        found.append(decision(model, words, [*ids, *critique, *ids_of(words, forced, special=False)], ("No", "Yes")))
        said = "Yes" if found[-1] >= 0.5 else "No"
        whole = begun + words.decode(critique, clean_up_tokenization_spaces=False) + forced + said + "}$\n</output>"
        turns.append({"role": "assistant", "content": whole})
    return found


# Name of the convention -> (card, family, tokenizer, architecture of config.json where it is not the family's own)
CASES = {
    "spare": (spare, "Llama", "bytes", ""),
    "math_shepherd": (math_shepherd, "Mistral", "pieces", ""),
    "math_psa": (math_psa, "Qwen2", "bytes", ""),
    "rlhflow": (rlhflow, "Llama", "bytes", ""),
    "qwen_math_prm": (qwen_math_prm, "Qwen2", "bytes", "Qwen2ForProcessRewardModel"),
    "skywork": (skywork, "Qwen2", "bytes", "Qwen2ForPrmModel"),
    "pure": (pure, "Qwen2", "bytes", "Qwen2ForTokenClassification"),
    "trl": (trl, "Llama", "bytes", "LlamaForTokenClassification"),
    "reason_eval_7b": (reason_eval_7b, "Mistral", "pieces, padded with <s>", "ReasonEval_7B"),
    "reason_eval_34b": (reason_eval_34b, "Llama", "pieces", "ReasonEval_34B"),
}

BY_PROGRAM = {
    "universal_prm": (universal_prm, "Qwen2", "bytes", "Qwen2ForRewardModel"),
    "think_prm": (think_prm, "Qwen2", "bytes", ""),
    "gen_prm": (gen_prm, "Qwen2", "bytes", ""),
}


def make(name: str, directory: pathlib.Path) -> tuple[Any, Any]:
    """The random model of a convention and its tokenizer, saved as its authors publish it."""
    _, family, kind, architecture = (CASES | BY_PROGRAM)[name]
    words = tokenizer_of(kind)
    model = causal(family, words)
    size = SIZES["hidden_size"]
    if architecture.endswith("ForTokenClassification"):
        torch.manual_seed(1)
        model = getattr(transformers, architecture)(model.config).eval()
    elif architecture == "Qwen2ForProcessRewardModel":
        model.score = torch.nn.Sequential(torch.nn.Linear(size, size), torch.nn.ReLU(), torch.nn.Linear(size, 2))
    elif architecture == "Qwen2ForRewardModel":
        model.score = torch.nn.Sequential(torch.nn.Linear(size, size), torch.nn.ReLU(), torch.nn.Linear(size, 1))
    elif architecture == "Qwen2ForPrmModel":
        model.v_head = torch.nn.Module()
        model.v_head.summary = torch.nn.Linear(size, 1)
    elif architecture:
        model.score_head = torch.nn.Linear(size, 3)
    directory.mkdir(exist_ok=True)
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    if architecture in ("Qwen2ForProcessRewardModel", "Qwen2ForRewardModel", "ReasonEval_7B", "ReasonEval_34B"):
        del weights["lm_head.weight"]
    safetensors.torch.save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {"architectures": [architecture or f"{family}ForCausalLM"]}
    (directory / "config.json").write_text(json.dumps(config, default=str))
    words.save_pretrained(directory)
    return model, words


def ours(
    directory: pathlib.Path, name: str = "", question: str = QUESTION, steps=STEPS, max_length: int = 1024
) -> list[float | None]:
    """The scores that a user gets; without a name by what the directory says."""
    loaded = huggingface.load(directory)
    reader = conventions.of_model(directory, name).reader(loaded.tokenizer)
    engine = LocalEngine(
        loaded.model, loaded.config, pad_id=0, seed=0, slots=2, max_length=max_length, prefill_tokens=512,
        read_out=reader.read_out, head=loaded.head,
    )  # fmt: skip
    candidate = Solution("p/0", "p", tuple(steps), None, "stop")
    settings = RewardModelSettings(max_length, max_tokens=CRITIQUE)
    program = functools.partial(reader.program, Problem("p", question), candidate, settings, REFERENCE)
    ((_, judgement),) = run({"prm": Ending(engine)}, [("p/0", program)], Nothing())
    return [step.score for step in judgement.steps]


class Ending:
    """An engine whose texts end where they reach their limit: random weights never end a critique by themselves, and
    one that was cut off is not read."""

    def __init__(self, engine: LocalEngine):
        self.submit, self._engine = engine.submit, engine

    def poll(self):
        return [
            (name, tuple(dataclasses.replace(completion, finish_reason="stop") for completion in answer))
            for name, answer in self._engine.poll()
        ]


class Nothing:
    """A journal that keeps nothing."""

    def get(self, request_id):
        return None

    def put(self, request_id, completions):
        pass


def error(name: str, directory: pathlib.Path) -> float:
    """The largest difference from the card's scores."""
    model, words = make(name, directory)
    with torch.no_grad():
        expected = (CASES | BY_PROGRAM)[name][0](model, words)
    found = ours(directory, name)
    assert [score is None for score in found] == [score is None for score in expected]
    return max(abs(a - b) for a, b in zip(found, expected, strict=True) if a is not None and b is not None)


def main() -> None:
    print("| convention | head | aggregation, threshold | error |\n|---|---|---|---|")
    for name, convention in conventions.PUBLISHED.items():
        with tempfile.TemporaryDirectory() as root:
            measured = error(name, pathlib.Path(root))
        head = convention.head or "LM head"
        print(f"| `{name}` | {head} | {convention.aggregation}, {convention.threshold} | {measured:.1e} |")


if __name__ == "__main__":
    main()
