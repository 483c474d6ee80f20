"""Steps of training a process reward model on a GPU, against plain transformers and torch on the same GPU.

    python benchmarks/gpu_training.py [--json=FILE] [--rounds=3] [--steps=8] [--only=WORD] [--peak=989]

Random Qwen2.5 of 1.5B parameters, all of them trained, and of 7B with adapters of rank 64 on all projections over
frozen kernels in bfloat16 (dropout 0.1, SPARE's). Rows are single texts of 2,048 tokens with 16 step tags. Both sides
compute in bfloat16; what is trained and AdamW's moments are float32. Ours keeps the results of the projections and
computes the rest again (`train.remat=minimal`), torch keeps everything. Both sides are run in turn, A B A B, after a
round that is not counted; a round is `steps` optimiser steps, torch's the better of its attention's backends. Both
hold their memory at once, about 120 GB: ours may take .45 of the card, unless XLA_PYTHON_CLIENT_MEM_FRACTION is set.

Model FLOPs per token are 6 for each parameter of a projection (4 where it is frozen, 6 for its adapters'), and those of
causal attention over half of the positions; what is computed again does not count. `peak` is the card's dense bfloat16
rate in TFLOP/s, an H100's or H200's by default. `--tiny` runs small models, to see that the script works.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import statistics
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from engine import Peer, sizes_of
from training import SETTINGS, Work, draw, ours

from spare_jax.models import adapters
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import Decoder, init_decoder
from spare_jax.training import batches, losses

LENGTH, TAGS = 2048, 16
QWEN_1_5B = DecoderConfig(
    vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_layers=28, num_heads=12, num_kv_heads=2,
    head_dim=128, family="qwen2", max_length=4096, rope_theta=1e6,
)  # fmt: skip
QWEN_7B = dataclasses.replace(
    QWEN_1_5B, vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_heads=28, num_kv_heads=4,
    tie_embeddings=False,
)  # fmt: skip
ADAPTERS = adapters.AdapterConfig(rank=64)


@dataclasses.dataclass(frozen=True)
class Job:
    name: str
    config: DecoderConfig
    lora: adapters.AdapterConfig | None
    rows: int  # of a step

    @property
    def model(self) -> Decoder:
        make = jax.jit(init_decoder, static_argnums=(0, 2))
        if self.lora is None:
            return make(self.config, jax.random.key(0), jnp.float32)
        return adapters.adapt(make(self.config, jax.random.key(0), jnp.bfloat16), self.lora, jax.random.key(1))

    @property
    def flops_per_token(self) -> float:
        """Model FLOPs of a step, forward and backward, by the token."""
        model = jax.eval_shape(lambda: self.model)
        trained, frozen = adapters.split(model)
        counted = [sum(x.size for x in jax.tree.leaves(part.blocks) if x.ndim == 3) for part in (trained, frozen)]
        attention = 2 * 2 * self.config.num_layers * self.config.num_heads * self.config.head_dim * LENGTH / 2
        return 6 * counted[0] + 4 * counted[1] + 3 * attention


def work_of(job: Job, steps: int) -> Work:
    rng = np.random.default_rng(0)
    tags = ((np.arange(TAGS) + 1) * LENGTH // TAGS - 1).tolist()
    texts = [[draw(rng, LENGTH), tags, rng.integers(0, 2, TAGS).tolist()] for _ in range(job.rows * steps)]
    rows = batches.pack([batches.Example(ids, tags=tags, labels=labels) for ids, tags, labels in texts], LENGTH)
    return Work(job.name, "prm", 1.2, texts, rows, losses.TokenTagLoss(good_id=10, bad_id=12))


def torch_side(job: Job, work: Work, peer: Peer, attention: list[str]) -> Callable[[], dict[str, float]]:
    lora = None
    if job.lora is not None:
        lora = {"r": job.lora.rank, "lora_alpha": job.lora.alpha, "lora_dropout": job.lora.dropout}
        lora["target_modules"] = list(job.lora.targets)
    settings = {"lr": SETTINGS.learning_rate, "weight_decay": SETTINGS.weight_decay, "betas": [0.9, 0.95]}
    settings["clip"] = SETTINGS.clip
    sent = {"name": job.name, "model": sizes_of(job.config), "texts": work.texts, "batch": job.rows, "lora": lora}
    return lambda: peer.seconds(**sent, settings=settings, attention=attention)


def compared(job: Job, steps: int, rounds: int, peak: float, attention: list[str], peer: Peer) -> dict[str, Any]:
    work = work_of(job, steps)
    how = dataclasses.replace(SETTINGS, dtype="bfloat16", remat="minimal")
    mine, torch = ours(work, steps, lambda: job.model, how), torch_side(job, work, peer, attention)
    turns = [(mine(), torch()) for _ in range(rounds + 1)][1:]
    seconds = statistics.median(own for own, _ in turns)
    others = {name: statistics.median(theirs[name] for _, theirs in turns) for name in attention}
    best = min(others, key=lambda name: others[name])
    flops = job.flops_per_token * work.tokens
    row = {
        "work": job.name, "steps": steps, "tokens": work.tokens, "ours_seconds": seconds, "torch_seconds": others,
        "ratio": others[best] / seconds, "bar": work.bar, "utilisation": flops / seconds / (peak * 1e12),
        "torch_utilisation": flops / others[best] / (peak * 1e12), "device": jax.devices()[0].device_kind,
        "rounds": turns,
    }  # fmt: skip
    print(
        f"{job.name}: ours {seconds / steps:.3f} s a step ({work.tokens / seconds:.0f} tok/s, "
        f"{row['utilisation']:.0%} of {peak:.0f} TFLOP/s), torch by {best} {others[best] / steps:.3f} s "
        f"({row['torch_utilisation']:.0%}), ratio {row['ratio']:.2f} (bar {work.bar})",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="optimiser steps in a round")
    parser.add_argument("--only", default="", help="rows whose name has this word")
    parser.add_argument("--peak", type=float, default=989.0)
    parser.add_argument("--tiny", action="store_true")
    chosen = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", ".45")
    attention = ["flash", "cudnn"] if jax.default_backend() == "gpu" else ["math"]
    shrink = functools.partial(
        dataclasses.replace, vocab_size=32000, hidden_size=256, intermediate_size=512, num_layers=9, num_heads=4,
        num_kv_heads=2, head_dim=64,
    )  # fmt: skip
    jobs = [
        Job("PRM of 1.5B, full, 6 x 2048", QWEN_1_5B, None, 6),
        Job("PRM of 7B, adapters, 2 x 2048", QWEN_7B, ADAPTERS, 2),
    ]
    found, peer = [], Peer(sys.executable, "torch_training.py")
    for job in jobs:
        if chosen.only not in job.name:
            continue
        if chosen.tiny:
            job = dataclasses.replace(job, config=shrink(job.config), rows=1)
        found.append(compared(job, chosen.steps, chosen.rounds, chosen.peak, attention, peer))
        if chosen.json:
            chosen.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
