"""ORPO and DPO against TRL 1.13.0, on the same small models and pairs: what test_preference_parity.py asserts and
docs/from_trl.md shows. `PYTHONPATH=.:tests python tests/parity/preference_parity.py` prints the table.

TRL's trainers tokenize the texts, pad the batch and compute the loss; we take the ids from their batch, pack them, and
read the model that they train from its directory. (ORPO's trainer is trl.experimental.orpo there.)
"""

import pathlib
import tempfile
from typing import Any, NamedTuple

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
import torch
import transformers
from small_tokenizer import small_tokenizer
from trl import DPOConfig, DPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from spare_jax.models import huggingface, sharding
from spare_jax.training import batches, loop, losses
from spare_jax.training.setup import TrainConfig

FAMILIES, KINDS = ("Llama", "Qwen2"), ("orpo", "dpo")
BETA, ROW = 0.3, 96
TEXTS = [
    ("Ada has 5.", " Ben has 8.\nThe answer is 8.", " Ben has 7."),
    ("Ben has 3 + 5 apples.", " The answer is 8.", " Ada has 5 + 3 = 7.\n\nThe answer is 7."),
    ("Ada has 7.", " The answer is 7.", " 8"),
    ("Ada.", " 7", " Ada has 5 + 3 = 8.\nBen has 8 apples.\n\nThe answer is 8.\n"),
]
SIZES = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=128, initializer_range=0.3, tie_word_embeddings=False,
)  # fmt: skip


class Compared(NamedTuple):
    """A loss, how far ours is from TRL's, the largest difference of a gradient relative to its tensor's largest entry,
    and how many tokens the texts have."""

    loss: float
    difference: float
    gradient: float
    lengths: list[int]


def make(family: str, seed: int, directory: pathlib.Path) -> Any:
    """A random model of torch, saved."""
    words = small_tokenizer("words")
    words.pad_token = words.eos_token
    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(vocab_size=len(words), **SIZES)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    model.save_pretrained(directory)
    words.save_pretrained(directory)
    return model


def trainer_of(kind: str, model: Any, reference: Any, directory: pathlib.Path) -> Any:
    """TRL's trainer on TEXTS."""
    words = small_tokenizer("words")
    data = datasets.Dataset.from_dict(
        dict(zip(("prompt", "chosen", "rejected"), map(list, zip(*TEXTS, strict=True)), strict=True))
    )
    options = dict(
        output_dir=str(directory / "out"), beta=BETA, max_length=ROW, report_to=[], use_cpu=True, bf16=False,
        remove_unused_columns=False, gradient_checkpointing=False,
    )  # fmt: skip
    if kind == "orpo":
        return ORPOTrainer(model, ORPOConfig(**options), train_dataset=data, processing_class=words)
    return DPOTrainer(model, reference, DPOConfig(**options), train_dataset=data, processing_class=words)


def pairs_of(batch: dict[str, torch.Tensor]) -> list[batches.Pair]:
    """The pairs of a batch of TRL, ORPO's or DPO's, without its padding."""
    if "input_ids" in batch:
        ids, there, learnt = (batch[name] for name in ("input_ids", "attention_mask", "completion_mask"))
        sides = [[part.chunk(2)[side] for part in (ids, there, learnt)] for side in (0, 1)]
    else:
        sides = [
            [batch[f"{side}_{name}"] for name in ("input_ids", "attention_mask", "labels")]
            for side in ("chosen", "rejected")
        ]
        sides = [[ids, there, labels != -100] for ids, there, labels in sides]

    def cut(ids, there, learnt):
        return ids[(there == 1) & (learnt == 0)].numpy(), ids[(there == 1) & (learnt == 1)].numpy()

    made = []
    for chosen, rejected in zip(*(zip(*side, strict=True) for side in sides), strict=True):
        (prompt, better), (same, worse) = cut(*chosen), cut(*rejected)
        assert np.array_equal(prompt, same)
        made.append(batches.Pair(prompt, better, worse))
    return made


def compare(family: str, kind: str, directory: pathlib.Path) -> Compared:
    """TRL's loss and gradient of one batch, beside ours."""
    theirs, reference = make(family, 0, directory / "model"), make(family, 1, directory / "reference")
    trainer = trainer_of(kind, theirs, reference, directory)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(TEXTS))])
    made = pairs_of(batch)
    theirs.eval()  # no dropout, and none in the configs
    theirs.zero_grad()
    loss = trainer.get_batch_loss_metrics(theirs, batch)[0] if kind == "orpo" else trainer.compute_loss(theirs, batch)
    loss.backward()
    expected = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}

    ours = losses.ORPOLoss(BETA, nll_on_prompt=True) if kind == "orpo" else losses.DPOLoss(BETA)
    rows = batches.pack_pairs(made, ROW)
    if kind == "dpo":
        config = TrainConfig(batch_rows=2, row_length=ROW)
        rows = loop.with_reference(
            config, huggingface.load(directory / "reference").model, rows, sharding.make_mesh(1, 1, 1)
        )
    model, arrays = huggingface.load(directory / "model").model, jax.tree.map(jnp.asarray, rows.arrays)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda model: jnp.sum(ours.sums(model, arrays) / ours.counts(arrays)))
    )(model)
    huggingface.save_weights(directory, gradient)  # under torch's names and in its layout
    found = safetensors.numpy.load_file(directory / "model.safetensors")
    assert found.keys() == expected.keys() and rows.counts.too_long == 0
    return Compared(
        loss=loss.item(),
        difference=abs(float(value) - loss.item()),
        gradient=float(max(np.abs(found[name] - g).max() / np.abs(g).max() for name, g in expected.items())),
        lengths=[len(pair.prompt) + len(text) for pair in made for text in (pair.chosen, pair.rejected)],
    )


if __name__ == "__main__":
    print("| loss | model | TRL's value | difference | gradient |\n|---|---|---|---|---|")
    for kind in KINDS:
        for family in FAMILIES:
            with tempfile.TemporaryDirectory() as path:
                found = compare(family, kind, pathlib.Path(path))
            print(f"| {kind} | {family} | {found.loss:.4f} | {found.difference:.1e} | {found.gradient:.1e} |")
