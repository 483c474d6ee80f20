"""GRPO's loss against TRL 1.13.0's GRPOTrainer, on one small model and the same completions: what test_grpo_parity.py
asserts and docs/grpo.md shows. `PYTHONPATH=.:tests python tests/parity/grpo_parity.py` prints the table.

The trainer is made, and its loss is called with padded completions of our choice; no text is sampled.
"""

import dataclasses
import pathlib
import tempfile
from typing import NamedTuple

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import preference_parity
import safetensors.numpy
import torch
from small_tokenizer import small_tokenizer
from trl import GRPOConfig, GRPOTrainer

from spare_jax.models import huggingface
from spare_jax.training import batches, losses

ROW, PROMPT, COMPLETION = 40, 6, 9
LOSSES = {
    "grpo": losses.GRPOLoss(kl_weight=0.0, mean="sequence"),
    "bnpo": losses.GRPOLoss(kl_weight=0.3, mean="token"),
    "dapo": losses.GRPOLoss(clip_high=0.28, kl_weight=0.0, mean="token"),
    "dr_grpo": losses.GRPOLoss(clip_low=0.1, clip_high=0.3, kl_weight=0.1, mean="constant", max_tokens=COMPLETION),
}


class Compared(NamedTuple):
    """TRL's loss, how far ours is from it, the largest difference of a gradient relative to its tensor's largest entry,
    and the share of tokens that the clip took."""

    loss: float
    difference: float
    gradient: float
    clipped: float


def samples(vocabulary: int) -> tuple[list[batches.Sampled], list[np.ndarray]]:
    """Completions of several lengths with advantages per token, and the reference's log-probabilities."""
    rng = np.random.default_rng(0)
    made, reference = [], []
    for length in (9, 4, 1, 7):
        ids = rng.integers(3, vocabulary, int(rng.integers(2, PROMPT + 1))), rng.integers(3, vocabulary, length)
        sampled = -np.log(vocabulary) + rng.normal(0, 0.5, length)
        made.append(batches.Sampled(*ids, sampled, rng.normal(0, 1, length)))
        reference.append(-np.log(vocabulary) + rng.normal(0, 0.5, length))
    return made, reference


def compare(kind: str, directory: pathlib.Path) -> Compared:
    """TRL's loss and gradient, beside ours."""
    ours, words = LOSSES[kind], small_tokenizer("words")
    theirs = preference_parity.make("Qwen2", 0, directory / "model")
    theirs.config._name_or_path = str(directory / "model")  # where the trainer finds a reference
    words.pad_token = words.eos_token
    made, reference = samples(len(words))
    config = GRPOConfig(
        output_dir=str(directory / "out"), loss_type=kind, beta=ours.kl_weight, epsilon=ours.clip_low,
        epsilon_high=ours.clip_high, max_completion_length=COMPLETION, num_generations=2, generation_batch_size=4,
        per_device_train_batch_size=4, report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False,
        temperature=1.0, use_bias_correction_kl=False,
    )  # fmt: skip
    data = datasets.Dataset.from_dict({"prompt": ["Ada has 5."] * 4})
    trainer = GRPOTrainer(
        theirs, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=config, train_dataset=data,
        processing_class=words,
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1

    def padded(parts, width, left=False):
        rows = [np.pad(part, (width - len(part), 0) if left else (0, width - len(part))) for part in parts]
        return torch.tensor(np.stack(rows), dtype=torch.float32 if rows[0].dtype.kind == "f" else torch.long)

    inputs = {
        "prompt_ids": padded([s.prompt for s in made], PROMPT, left=True),
        "prompt_mask": padded([np.ones(len(s.prompt), int) for s in made], PROMPT, left=True),
        "completion_ids": padded([s.completion for s in made], COMPLETION),
        "completion_mask": padded([np.ones(len(s.completion), int) for s in made], COMPLETION),
        "advantages": padded([s.advantages for s in made], COMPLETION),
        "old_per_token_logps": padded([s.logprobs for s in made], COMPLETION),
        "ref_per_token_logps": padded(reference, COMPLETION),
        "num_items_in_batch": torch.tensor(sum(len(s.completion) for s in made)),
    }
    theirs.train()  # there is no dropout in the config
    theirs.zero_grad()
    loss = trainer._compute_loss(theirs, inputs)
    loss.backward()
    expected = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}

    packed = batches.pack_samples(made, ROW, [2]).arrays
    of_reference = [dataclasses.replace(s, logprobs=logps) for s, logps in zip(made, reference, strict=True)]
    packed["reference_logps"] = batches.pack_samples(of_reference, ROW, [2]).arrays["sampled_logps"]
    model, arrays = huggingface.load(directory / "model").model, jax.tree.map(jnp.asarray, packed)

    def objective(model):
        means = ours.sums(model, arrays) / ours.counts(arrays)
        return means[0] + means[1], means

    (value, means), gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))(model)
    huggingface.save_weights(directory, gradient)  # under torch's names and in its layout
    found = safetensors.numpy.load_file(directory / "model.safetensors")
    assert found.keys() == expected.keys()
    return Compared(
        loss=loss.item(),
        difference=abs(float(value) - loss.item()),
        gradient=float(max(np.abs(found[name] - g).max() / np.abs(g).max() for name, g in expected.items())),
        clipped=float(means[3]),
    )


if __name__ == "__main__":
    print("| loss_type | TRL's value | difference | gradient | clipped |\n|---|---|---|---|---|")
    for name in LOSSES:
        with tempfile.TemporaryDirectory() as path:
            row = compare(name, pathlib.Path(path))
        print(f"| {name} | {row.loss:.4f} | {row.difference:.1e} | {row.gradient:.1e} | {row.clipped:.0%} |")
