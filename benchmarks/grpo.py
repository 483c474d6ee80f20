"""An iteration of GRPO against TRL's GRPOTrainer with its own generation, on a random Qwen2 of 15.8M parameters, or on
a GPU of 1.5B.

    python benchmarks/grpo.py [--json=FILE] [--rounds=3] [--prompts=8] [--samples=8] [--new-tokens=128] [--size=1.5B]
        [--peer-accumulate=1]

Both sides are run in turn, A B A B, after a round that is not counted (it compiles); figures are medians of seconds and
the ratio of the medians. A round samples `samples` completions of `new-tokens` tokens for each prompt of 64, at
temperature 1, and takes one step on all of them with KL against the start model. The small model is in float32; the
large one computes in bfloat16, ours over parameters and moments in float32, TRL's is bfloat16 throughout, which asks
less of it. `peer-accumulate` cuts TRL's step into microbatches, as `accumulate` of TRAIN does ours. The reward is a
digest of the text on both sides and costs nothing: what a judge costs is benchmarks/engine.py's affair. TRL (1.13.0)
runs in a process of its own. Seconds are also printed by part.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import tempfile

import jax
import numpy as np
from engine import CONFIG, Peer, sizes_of
from gpu_training import QWEN_1_5B
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from spare_jax.engines.local import LocalEngine
from spare_jax.models import sharding
from spare_jax.models.decoder import init_decoder
from spare_jax.records import Judgement, Problem
from spare_jax.runs import splits
from spare_jax.training import grpo, losses
from spare_jax.training.format_rules import FormatRules, Parts
from spare_jax.training.setup import TrainConfig

PROMPT = 64
TRAIN = TrainConfig(row_length=192, accumulate=4, learning_rate=1e-5, clip=1.0, weight_decay=0.0)
TRAIN_ON_GPU = dataclasses.replace(TRAIN, row_length=768, accumulate=1, dtype="bfloat16", remat="minimal")
LOSS = losses.GRPOLoss(kl_weight=0.001)
ANY_FORM = FormatRules(lambda text: Parts((text,), 1, ""), boxed=False)


def numbers(vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are its ids, without an end of text: no completion ends early."""
    words = Tokenizer(models.WordLevel({str(i): i for i in range(vocab_size)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--size", default="15.8M", choices=("15.8M", "1.5B"))
    parser.add_argument("--peer-accumulate", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", ".4")  # of a GPU: the peer wants memory too

    large = options.size == "1.5B"
    config, train = (QWEN_1_5B, TRAIN_ON_GPU) if large else (CONFIG, TRAIN)
    rng = np.random.default_rng(0)
    prompts = rng.integers(2, config.vocab_size, (options.prompts, PROMPT)).tolist()
    problems = [Problem(f"train-{i}", " ".join(map(str, ids))) for i, ids in enumerate(prompts)]
    model = jax.jit(init_decoder, static_argnums=0)(config, jax.random.key(0))
    count = options.prompts * options.samples
    engine = LocalEngine(
        model, config, pad_id=0, seed=0, slots=count, max_length=256, max_tokens=options.new_tokens,
        lanes=1 if jax.default_backend() != "cpu" else 2, prefill_tokens=1024, dtype=train.dtype,
        cache_bytes=2**31 if large else None,
    )  # fmt: skip
    task = dataclasses.replace(splits.task_of("arithmetic"), instruction="")
    policy = grpo.Policy(task, numbers(config.vocab_size), "", ANY_FORM)
    hyperparameters = dict(
        learning_rate=train.learning_rate, weight_decay=0.0, max_grad_norm=train.clip, beta=LOSS.kl_weight
    )
    job = dict(model=sizes_of(config), prompts=prompts, samples=options.samples, new_tokens=options.new_tokens)
    job |= {"settings": hyperparameters, "accumulate": options.peer_accumulate}
    peer = Peer(sys.executable, "trl_grpo.py")
    ours, theirs = [], []

    def judge(name, groups):
        return [[Judgement(s.id, "digest", outcome=sum(s.token_ids) % 2 == 0) for s in of] for _, of in groups]

    def turn(iteration, iterations, metrics):
        """After each iteration of ours comes one of theirs."""
        ours.append({name.removeprefix("seconds/"): s for name, s in metrics.items() if name.startswith("seconds/")})
        theirs.append(peer.seconds(**job))
        print(f"round {iteration - 1}: ours {ours[-1]}, TRL {theirs[-1]}", file=sys.stderr, flush=True)

    settings = grpo.GRPOConfig(
        iterations=options.rounds + 1, prompts=options.prompts, samples=options.samples, max_tokens=options.new_tokens,
        checkpoint_every=options.rounds + 1, loss=LOSS, train=train,
    )  # fmt: skip
    mesh = sharding.make_mesh(jax.device_count(), 1, 1)
    with tempfile.TemporaryDirectory() as directory:
        grpo.train(settings, model, engine, policy, problems, judge, directory, mesh, progress=turn)

    parts = [{name: statistics.median(row[name] for row in side[1:]) for name in side[0]} for side in (ours, theirs)]
    totals = [statistics.median(sum(row.values()) for row in side[1:]) for side in (ours, theirs)]
    print("| side | seconds | " + " | ".join(parts[0]) + " |\n|---|---|---|---|---|")
    for name, total, of in zip(("spare_jax", "TRL"), totals, parts, strict=True):
        shares = (f"{of[part] / total:.0%}" if part in of else "" for part in parts[0])
        print(f"| {name} | {total:.2f} | {' | '.join(shares)} |")
    print(f"ratio {totals[1] / totals[0]:.2f}")
    if options.json:
        row = {
            "work": f"GRPO of {options.size}, {count} x ({PROMPT} + {options.new_tokens})",
            "ours": totals[0],
            "theirs": totals[1],
        }
        row |= {"ratio": totals[1] / totals[0], "parts": parts, "device": jax.devices()[0].device_kind}
        options.json.write_text(json.dumps({"rows": [row]}, indent=2))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    main()
