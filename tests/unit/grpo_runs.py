"""Small GRPO runs of tiny-base on the arithmetic world, for test_grpo.py and the processes that it starts.

python grpo_runs.py kill DIRECTORY ITERATION   trains, and kills itself (as kill -9 does) in that iteration
python grpo_runs.py meshes DIRECTORY           trains on several meshes of eight devices; prints JSON
"""

import dataclasses
import json
import os
import pathlib
import signal
import sys

import jax
from jax.sharding import AxisType

from spare_jax import assets
from spare_jax.engines.local import LocalEngine
from spare_jax.judges.outcome import outcome
from spare_jax.models import huggingface, sharding
from spare_jax.runs import splits
from spare_jax.tasks.task import world_of
from spare_jax.training import format_rules, grpo, losses
from spare_jax.training.setup import TrainConfig

TASK = splits.task_of("arithmetic")
PAIRS = list(world_of(TASK).generate(0, "train", 5))
PROBLEMS, GOLD = [p for p, _ in PAIRS], {g.problem_id: g for _, g in PAIRS}
CONFIG = grpo.GRPOConfig(
    iterations=5, prompts=2, samples=4, max_tokens=48, reward="rlvr", watch_every=2, checkpoint_every=2,
    loss=losses.GRPOLoss(kl_weight=0.01),
    train=TrainConfig(row_length=512, learning_rate=3e-4, clip=1.0, seed=3, batch_rows=0),
)  # fmt: skip
ENGINE = dict(slots=8, max_length=256, max_tokens=48, prefill_tokens=512, chunk=8)


def right_answers(name, groups):
    """The judge of RLVR."""
    return [[outcome(TASK, GOLD[p.id], s) for s in solutions] for p, solutions in groups]


def is_correct(solution):
    return TASK.answers_equal(solution.answer, GOLD[solution.problem_id].answers)


def mesh_of(*sizes):
    devices = jax.devices()[: sizes[0] * sizes[1] * sizes[2]]
    return jax.make_mesh(sizes, sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def start():
    return huggingface.load(assets.resolve("tiny-base"))


def train(
    directory, *, judge=right_answers, problems=PROBLEMS, progress=None, mesh=None, model=None, rules=None, **changes
):
    """The run of CONFIG with changes."""
    checkpoint, where = start(), mesh or mesh_of(1, 1, 1)
    model = model or checkpoint.model
    engine = LocalEngine(model, checkpoint.config, pad_id=0, seed=3, mesh=mesh, **ENGINE)
    digest = huggingface.tokenizer_digest(checkpoint.tokenizer)
    policy = grpo.Policy(TASK, checkpoint.tokenizer, digest, rules or format_rules.rules_of(TASK))
    config = dataclasses.replace(CONFIG, **changes)
    return grpo.train(
        config, model, engine, policy, problems, judge, directory, where, problems[:2], is_correct, progress
    )


def rows(directory):
    return [json.loads(line) for line in (pathlib.Path(directory) / "steps.jsonl").read_text().splitlines()]


def main(command: str, directory: str, iteration: str = "0") -> None:
    if command == "meshes":
        for sizes in ((1, 1, 1), (4, 2, 1)):
            name = "x".join(map(str, sizes))
            train(pathlib.Path(directory) / name, mesh=mesh_of(*sizes), iterations=2)
            print(json.dumps({name: rows(pathlib.Path(directory) / name)}))
        return

    def kill(name, groups):
        if name == f"{int(iteration):06d}":
            os.kill(os.getpid(), signal.SIGKILL)
        return right_answers(name, groups)

    train(directory, judge=kill)


if __name__ == "__main__":
    main(*sys.argv[1:])
