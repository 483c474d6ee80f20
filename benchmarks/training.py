"""Steps of training against TRL's trainers, a PRM's and ORPO's, on a random Qwen2 of 15.8M parameters in float32.

    python benchmarks/training.py [--json=FILE] [--rounds=5] [--steps=8] [--only=WORD]

Both sides are run in turn, A B A B, after a round that is not counted (it compiles); figures are medians of seconds and
the ratio of the medians. A round is `steps` optimiser steps over the same texts on both sides, eight texts (or pairs)
for each: TRL pads a batch to its longest text, we pack all texts into rows and share the rows out over the steps.
Tokens are those of the texts, without padding. The settings of the optimiser are ours on both sides (AdamW; torch's
default is fused), activations are kept, attention is each side's default. TRL (`pip install trl==1.13.0`) runs in a
process of its own, and is not charged for putting batches together; we are.

"full" are texts of 512 tokens. "GSM8K" takes the lengths of questions and steps from gsm8k_lengths.json; a pair's
rejected completion is as long as the next solution. `--parts` times, in place of the table, the gradients of a step's
parts by themselves, for rows of 512.
"""

import argparse
import dataclasses
import functools
import json
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from engine import CONFIG, Peer

from spare_jax.models import attention, decoder, sharding
from spare_jax.training import batches, losses
from spare_jax.training.setup import TrainConfig, set_up, to_devices

BATCH, END = 8, 1
SETTINGS = TrainConfig()
LENGTHS = pathlib.Path(__file__).parent / "gsm8k_lengths.json"


@dataclasses.dataclass(frozen=True)
class Work:
    """Texts as the peer reads them, and our rows of the same."""

    name: str
    kind: str
    bar: float
    texts: list[list[list[int]]]
    rows: batches.Packed
    loss: losses.Loss

    @property
    def tokens(self) -> int:
        return self.rows.counts.tokens


def solutions(full: bool, count: int) -> list[tuple[int, list[int]]]:
    """Lengths of a question and of the steps of its solution, a step's tag included."""
    if full:
        return [(64, [56] * 8)] * count
    known = json.loads(LENGTHS.read_text())["solutions"]
    if count > len(known):
        raise ValueError(f"{count} texts of {len(known)} lengths: take at most {len(known) // BATCH} --steps")
    return [(question, [length + 1 for length in steps]) for question, steps in known[:count]]


def prm_work(name: str, full: bool, steps: int, row_length: int, bar: float) -> Work:
    rng = np.random.default_rng(0)
    texts, examples = [], []
    for question, lengths in solutions(full, BATCH * steps):
        tags = (question + np.cumsum(lengths) - 1).tolist()
        ids, labels = draw(rng, question + sum(lengths)), rng.integers(0, 2, len(tags)).tolist()
        texts.append([ids, tags, labels])
        examples.append(batches.Example(ids, tags=tags, labels=labels))
    return Work(name, "prm", bar, texts, batches.pack(examples, row_length), losses.TokenTagLoss(good_id=10, bad_id=12))


def orpo_work(name: str, full: bool, steps: int, row_length: int, bar: float) -> Work:
    rng = np.random.default_rng(0)
    known = solutions(full, BATCH * steps)
    texts, pairs = [], []
    for (question, chosen), (_, rejected) in zip(known, [*known[1:], known[0]], strict=True):
        # TRL puts the end behind a completion; so a full text is one of 511 and its end.
        pair = [draw(rng, question), draw(rng, sum(chosen) - 1), draw(rng, sum(rejected) - 1)]
        texts.append(pair)
        pairs.append(batches.Pair(pair[0], [*pair[1], END], [*pair[2], END]))
    loss = losses.ORPOLoss(nll_on_prompt=True)
    return Work(name, "orpo", bar, texts, batches.pack_pairs(pairs, row_length), loss)


def draw(rng: np.random.Generator, length: int) -> list[int]:
    return rng.integers(300, 31000, length).tolist()


def works(steps: int) -> list[Work]:
    return [
        prm_work("PRM, 8 x 512, full", True, steps, 512, 0),
        prm_work("PRM, 8 of GSM8K's lengths", False, steps, 320, 1),
        orpo_work("ORPO, 8 pairs x 2 x 512, full", True, steps, 1024, 0),
        orpo_work("ORPO, 8 pairs of GSM8K's lengths", False, steps, 896, 1),
    ]


def ours(
    work: Work, steps: int, make: Callable[[], decoder.Decoder], settings: TrainConfig = SETTINGS
) -> Callable[[], float]:
    """A function that trains the model that `make` makes on all rows of `work` in so many steps, and says the seconds
    that it took."""
    rows = math.ceil(work.rows.rows / steps)
    config = dataclasses.replace(settings, batch_rows=rows, row_length=work.rows.arrays["ids"].shape[1])
    mesh = jax.make_mesh((1, 1, 1), sharding.MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3)
    model, key = make(), jax.random.key(0)
    training = set_up(config, model, work.loss, optax.constant_schedule(config.learning_rate), mesh)
    trained, state, frozen = training.place(model)
    del model

    def run() -> float:
        nonlocal trained, state
        metrics: dict[str, jax.Array] = {}
        start = time.perf_counter()
        for number in range(steps):
            wanted = np.arange(number * rows, (number + 1) * rows)
            taken = batches.take(work.rows, np.where(wanted < work.rows.rows, wanted, -1))
            batch = to_devices(taken, mesh, 1)
            trained, state, metrics = training.step(trained, state, frozen, batch, key, number)
        assert math.isfinite(float(metrics["loss"]))
        return time.perf_counter() - start

    return run


def trl(work: Work, peer: Peer) -> Callable[[], float]:
    settings = {
        "learning_rate": SETTINGS.learning_rate, "weight_decay": SETTINGS.weight_decay, "adam_beta2": 0.95,
        "max_grad_norm": SETTINGS.clip, "lr_scheduler_type": "constant",
    }  # fmt: skip
    job = {"name": work.name, "kind": work.kind, "texts": work.texts, "batch": BATCH, "settings": settings}
    return lambda: peer.seconds(**job)[""]


def parts(rounds: int, rows: int = BATCH, length: int = 512) -> list[dict[str, Any]]:
    """Seconds of the gradients of a step's parts, each compiled by itself: medians over `rounds`, in turn."""
    model = decoder.init_decoder(CONFIG, jax.random.key(0))
    shape, heads = (rows, length), (rows, length, CONFIG.num_kv_heads)
    ids, segments = jnp.ones(shape, jnp.int32), jnp.ones(shape, jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(length), shape)
    q = jnp.ones((*heads, CONFIG.num_heads // CONFIG.num_kv_heads, CONFIG.head_dim))
    k = jnp.ones((*heads, CONFIG.head_dim))
    x = jnp.ones((*shape, CONFIG.hidden_size))
    cos_sin = decoder.rotary_angles(positions, CONFIG)

    def hidden(model):
        return decoder.hidden_states(model, ids, positions, segments).sum()

    def mixed(q, k, v):
        # Queries of their own for each layer, or the compiler makes one of all.
        layers = range(CONFIG.num_layers)
        return sum(attention.packed_attention(q + i, k, v, segments, None, None).sum() for i in layers)

    def products(blocks, x):
        def layer(x, block):
            q, _, _ = block.attention.project(x, cos_sin, CONFIG)
            x = x + block.attention.output(q.reshape(x.shape))
            return x + block.mlp(x), None

        return jax.lax.scan(layer, x, blocks)[0].sum()

    timed = {
        "hidden states": functools.partial(jax.jit(jax.grad(hidden)), model),
        "attention of all layers": functools.partial(jax.jit(jax.grad(mixed, (0, 1, 2))), q, k, k),
        "projections and MLPs of all layers": functools.partial(jax.jit(jax.grad(products, (0, 1))), model.blocks, x),
    }
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds + 1):
        for name, function in timed.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[name].append(time.perf_counter() - start)
    found = []
    for name, all_rounds in seconds.items():
        median = statistics.median(all_rounds[1:])
        print(f"{name:35} {1000 * median:8.1f} ms")
        found.append({"part": name, "seconds": median, "rounds": all_rounds[1:]})
    return found


def compared(works: Sequence[Work], steps: int, rounds: int) -> Iterator[dict[str, Any]]:
    """A row of the table for each work, as soon as its rounds are through."""
    peer = Peer(sys.executable, "trl_training.py")
    for work in works:
        sides = ours(work, steps, lambda: decoder.init_decoder(CONFIG, jax.random.key(0))), trl(work, peer)
        seconds = [tuple(side() for side in sides) for _ in range(rounds + 1)]
        mine, theirs = (statistics.median(side) for side in zip(*seconds[1:], strict=True))
        shape = [steps * math.ceil(work.rows.rows / steps), work.rows.arrays["ids"].shape[1]]
        row = {
            "work": work.name, "steps": steps, "tokens": work.tokens, "row_length": shape[1],
            "filled": work.tokens / math.prod(shape), "ours_seconds": mine, "theirs_seconds": theirs,
            "ours_tokens_per_second": work.tokens / mine, "theirs_tokens_per_second": work.tokens / theirs,
            "ratio": theirs / mine, "bar": work.bar, "rounds": seconds[1:], "device": jax.devices()[0].device_kind,
        }  # fmt: skip
        print(
            f"{work.name:35} ours {mine:7.2f} s ({work.tokens / mine:6.0f} tok/s, rows {row['filled']:.0%} full)  "
            f"TRL {theirs:7.2f} s ({work.tokens / theirs:6.0f} tok/s)  ratio {row['ratio']:5.2f} (bar {work.bar})",
            flush=True,
        )
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path, help="write the rows to this file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="optimiser steps in a round")
    parser.add_argument("--only", default="", help="rows whose name has this word")
    parser.add_argument("--parts", action="store_true", help="the parts of a step in place of the table")
    chosen = parser.parse_args()
    found: list[dict[str, Any]] = []
    if chosen.parts:
        rows: Iterable[dict[str, Any]] = parts(chosen.rounds)
    else:
        wanted = [work for work in works(chosen.steps) if chosen.only in work.name]
        rows = compared(wanted, chosen.steps, chosen.rounds)
    for row in rows:
        found.append(row)
        if chosen.json:
            chosen.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
