"""The engine against other samplers and against itself without what it saves, on a random Qwen2 of 15.8M parameters.

    python benchmarks/engine.py [--json=FILE] [--rounds=5] [--only=WORD] [--tunix=PYTHON]

Both sides of a row are run in turn, A B A B, after a round that is not counted (it compiles); figures are medians of
seconds and the ratio of the medians. `--tunix` is the Python of a virtual environment with google-tunix; without it
those rows are left out. transformers runs in a process of its own. Prompts are new in every round.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from spare_jax.engines.local import LocalEngine
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import init_decoder
from spare_jax.models.heads import ReadOut
from spare_jax.models.quantization import quantize
from spare_jax.programs import Grammar, Prefix, Sample, Score
from spare_jax.prompts import annotate

PEERS = pathlib.Path(__file__).parent / "peers"
CONFIG = DecoderConfig(
    vocab_size=32000, hidden_size=256, intermediate_size=1024, num_layers=8, num_heads=8, num_kv_heads=2, head_dim=32,
    family="qwen2", max_length=4096, rope_theta=1e6,
)  # fmt: skip
Requests = list[tuple[str, Sample | Score]]
Side = Callable[[int], float]  # a round's number -> seconds


@dataclasses.dataclass
class Row:
    """One line of the table: `ours` and `theirs` do the same work and say how long they took."""

    work: str
    against: str
    bar: float
    ours: Side
    theirs: Side
    tokens: int


def sizes_of(config: DecoderConfig) -> dict[str, Any]:
    """As transformers' Qwen2Config names them."""
    return {
        "vocab_size": config.vocab_size, "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size, "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads, "num_key_value_heads": config.num_kv_heads,
        "max_position_embeddings": config.max_length, "tie_word_embeddings": config.tie_embeddings,
    }  # fmt: skip


class Peer:
    """Another sampler or trainer in a process of its own."""

    def __init__(self, python: str, script: str):
        command = [python, str(PEERS / script)]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, open as long as the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def seconds(self, **job: object) -> dict[str, float]:
        """The seconds that a job took, by cache; a trainer has none and names it ""."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"model": sizes_of(CONFIG), "dtype": "float32"} | job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"{self._process.args} ended without an answer:\n{self._errors.read()[-2000:]}")
        return json.loads(line)["seconds"]


def run(engine: LocalEngine, requests: Requests) -> float:
    """Seconds until all requests are answered."""
    start = time.perf_counter()
    for name, request in requests:
        engine.submit(name, request)
    left = len(requests)
    while left:
        left -= len(engine.poll())
    return time.perf_counter() - start


def prompt(rng: np.random.Generator, length: int) -> tuple[int, ...]:
    return tuple(rng.integers(10, 31000, length).tolist())


def tokens(rng: np.random.Generator) -> list[bytes]:
    """A vocabulary of 32,000 tokens: all bytes, and words of small letters."""
    words = {bytes(rng.integers(97, 123, rng.integers(2, 9)).tolist()) for _ in range(60000)}
    return [bytes([byte]) for byte in range(256)] + sorted(words, key=lambda w: (len(w), w))[-(32000 - 256) :]


def rows(transformers: Peer, tunix: Peer | None) -> list[Row]:
    model = init_decoder(CONFIG, jax.random.key(0))

    def engine(**sizes) -> LocalEngine:
        return LocalEngine(model, CONFIG, pad_id=0, seed=0, read_out=ReadOut((6, 5)), **sizes)

    def ours(made: LocalEngine, requests: Callable[[np.random.Generator], Requests]) -> Side:
        def measure(number: int) -> float:
            named = requests(np.random.default_rng([id(requests) % 2**32, number]))
            return run(made, [(f"{number}/{name}", request) for name, request in named])

        return measure

    plain_engine = engine(slots=16, max_length=256, max_tokens=128)

    def plain(temperature: float) -> Callable[[np.random.Generator], Requests]:
        return lambda rng: [
            (f"{temperature}/{i}", Sample("m", prompt(rng, 128), 128, temperature=temperature)) for i in range(16)
        ]

    def of_transformers(sample: bool, caches=("dynamic", "static"), batch=16, length=128, new=128, samples=1) -> Side:
        job = {"batch": batch, "prompt": length, "new": new, "samples": samples, "sample": sample, "caches": caches}
        return lambda _: min(transformers.seconds(**job).values())

    def of_tunix(sample: bool) -> Side:
        assert tunix is not None
        return lambda _: min(tunix.seconds(batch=16, prompt=128, new=128, sample=sample).values())

    table = [
        Row("16 x (128 + 128), T = 1", "transformers", 2, ours(plain_engine, plain(1.0)), of_transformers(True), 2048),
        Row(
            "16 x (128 + 128), greedy", "transformers", 2, ours(plain_engine, plain(0.0)), of_transformers(False), 2048
        ),
    ]
    if tunix:
        table += [
            Row("16 x (128 + 128), T = 1", "tunix", 2, ours(plain_engine, plain(1.0)), of_tunix(True), 2048),
            Row("16 x (128 + 128), greedy", "tunix", 2, ours(plain_engine, plain(0.0)), of_tunix(False), 2048),
        ]

    vocabulary = tokens(np.random.default_rng(0))
    holder = engine(slots=16, max_length=256, max_tokens=128, tokens=vocabulary)
    for steps in range(1, 13):  # tables of the size that a run has
        holder._grammars.add(annotate.grammar(steps).pattern)

    def held(rng: np.random.Generator) -> Requests:
        string = Grammar(r'"([^"\\]|\\["\\])*"', 1000)
        return [(f"held/{i}", Sample("m", prompt(rng, 128), 128, grammar=string)) for i in range(16)]

    table.append(
        Row(
            "16 x (128 + 128) in a grammar", "no grammar", 0.9, ours(holder, held), ours(plain_engine, plain(1.0)), 2048
        )
    )

    small = LocalEngine(quantize(model, "int8"), CONFIG, pad_id=0, seed=0, slots=16, max_length=256, max_tokens=128)
    table.append(
        Row(
            "16 x (128 + 128), int8 weights",
            "float32",
            0,
            ours(small, plain(1.0)),
            ours(plain_engine, plain(1.0)),
            2048,
        )
    )
    half = LocalEngine(
        init_decoder(CONFIG, jax.random.key(0), "bfloat16"), CONFIG, pad_id=0, seed=0, slots=16, max_length=256,
        max_tokens=128, dtype="bfloat16",
    )  # fmt: skip
    table.append(
        Row("16 x (128 + 128), bfloat16", "float32", 0, ours(half, plain(1.0)), ours(plain_engine, plain(1.0)), 2048)
    )

    many = engine(slots=128, max_length=576, max_tokens=64)

    def samples(rng: np.random.Generator) -> Requests:
        return [(f"n/{i}", Sample("m", prompt(rng, 512), 64, n=16)) for i in range(8)]

    def repeated(rng: np.random.Generator) -> Requests:
        # A first token of its own keeps each prompt from being found among those read before.
        prompts = [prompt(rng, 511) for _ in range(8)]
        return [(f"1/{i}/{k}", Sample("m", (100 + 16 * i + k, *prompts[i]), 64)) for i in range(8) for k in range(16)]

    table += [
        Row("8 problems x 16 samples, 512 + 64", "sharing off", 3, ours(many, samples), ours(many, repeated), 8192),
        Row(
            "8 problems x 16 samples, 512 + 64", "transformers", 5, ours(many, samples),
            of_transformers(True, ("dynamic",), 8, 512, 64, 16), 8192,
        ),
    ]  # fmt: skip

    annotator = engine(slots=64, max_length=1856, max_tokens=150)

    def annotations(shared: bool) -> Callable[[np.random.Generator], Requests]:
        def requests(rng: np.random.Generator) -> Requests:
            guidelines = prompt(rng, 1500)
            if shared:
                prefix = Prefix(guidelines)
                return [(f"shared/{i}", Sample("m", prompt(rng, 200), 150, prefix)) for i in range(64)]
            own = [(100 + i, *guidelines[1:], *prompt(rng, 200)) for i in range(64)]
            return [(f"own/{i}", Sample("m", ids, 150)) for i, ids in enumerate(own)]

        return requests

    table.append(
        Row(
            "64 annotations, 1,500 in common + 200 + 150", "sharing off", 3, ours(annotator, annotations(True)),
            ours(annotator, annotations(False)), 9600,
        )
    )  # fmt: skip

    mixed = engine(slots=32, max_length=576, max_tokens=512)

    def lengths(rng: np.random.Generator) -> Requests:
        wanted = rng.integers(16, 513, 256).tolist()
        return [(f"mixed/{i}", Sample("m", prompt(rng, 64), length)) for i, length in enumerate(wanted)]

    def in_whole_batches(number: int) -> float:
        named = [(f"whole/{number}/{n}", r) for n, r in lengths(np.random.default_rng([1, number]))]
        return sum(run(mixed, named[i : i + 32]) for i in range(0, len(named), 32))

    def continuously(number: int) -> float:
        return run(mixed, [(f"{number}/{n}", r) for n, r in lengths(np.random.default_rng([1, number]))])

    table.append(Row("256 requests of 16..512", "whole batches", 1.7, continuously, in_whole_batches, 256 * 264))

    scorer = engine(slots=1, max_length=512, max_tokens=1, cache_bytes=2**30)

    def growing(kept: bool) -> Side:
        def measure(number: int) -> float:
            rng = np.random.default_rng([2, number, kept])
            problems = [prompt(rng, 128) for _ in range(64)]
            prefixes, seconds = [Prefix(ids) for ids in problems], 0.0
            for step in range(8):
                requests: Requests = []
                for i, prefix in enumerate(prefixes):
                    new, name = prompt(rng, 32), f"{kept}/{number}/{step}/{i}"
                    before = prefix.all_ids()
                    at = (len(before) + 31,)
                    if kept:
                        requests.append((name, Score("m", new, at, prefix)))
                    else:
                        requests.append((name, Score("m", (*before, *new), at)))
                    prefixes[i] = Prefix(new, prefix)
                seconds += run(scorer, requests)
            return seconds

        return measure

    table.append(
        Row(
            "scoring 64 solutions of 8 steps as they grow", "from the start", 3, growing(True), growing(False), 64 * 256
        )
    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose work or opponent has this word")
    parser.add_argument("--tunix", help="the Python of an environment with google-tunix")
    chosen = parser.parse_args()
    peers = Peer(sys.executable, "transformers_generate.py"), chosen.tunix and Peer(chosen.tunix, "tunix_sampler.py")
    device, found = jax.devices()[0].device_kind, []
    for row in rows(*peers):
        if chosen.only not in f"{row.work} {row.against}":
            continue
        seconds: list[tuple[float, float]] = []
        for number in range(chosen.rounds + 1):
            seconds.append((row.ours(number), row.theirs(number)))
        ours, theirs = (statistics.median(side) for side in zip(*seconds[1:], strict=True))
        result = {
            "work": row.work, "against": row.against, "ours_seconds": ours, "theirs_seconds": theirs,
            "ours_tokens_per_second": row.tokens / ours, "ratio": theirs / ours, "bar": row.bar, "device": device,
        }  # fmt: skip
        found.append(result)
        print(
            f"{row.work:45} {row.against:15} {ours:7.2f} s ({row.tokens / ours:6.0f} tok/s) {theirs:7.2f} s "
            f"ratio {theirs / ours:5.2f} (bar {row.bar})",
            flush=True,
        )
        if chosen.json:
            pathlib.Path(chosen.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
