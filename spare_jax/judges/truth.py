"""The true labels of a generated problem's solution, and the same with labels flipped at chosen rates.

Flipped labels have a known precision and recall, so a study can measure what a reward model gains from labels of each
quality (pipelines/annotation_study.py).
"""

import hashlib
from dataclasses import dataclass

from spare_jax.judges.outcome import is_correct
from spare_jax.keys import unlisted
from spare_jax.records import Gold, Judgement, Problem, Solution, StepJudgement
from spare_jax.tasks.task import Task, world_of


@dataclass(frozen=True)
class Flips:
    """The probabilities with which the label of a right step (`correct`) and of a wrong one (`incorrect`) is flipped.

    Whether a step is flipped depends on seed, solution id and step number alone, and a step that is flipped at some
    rate is flipped at every higher one.
    """

    correct: float = 0.0
    incorrect: float = 0.0
    seed: int = unlisted(0)

    def __post_init__(self):
        for name in ("correct", "incorrect"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"flip rate {name!r} is {getattr(self, name)}: set it to a number from 0 to 1")


def truth(
    task: Task,
    problem: Problem,
    gold: Gold,
    solution: Solution,
    flips: Flips | None = None,
) -> Judgement:
    """The true label of every step, flipped as `flips` says, and the true outcome, which is never flipped.

    Raises:
      ValueError: the task's problems are not generated, so the truth of their steps is unknown.
    """
    steps = world_of(task).truth(problem, gold, solution.steps)
    if flips is not None:
        steps = tuple(_flip(step, f"{flips.seed}/{solution.id}/{i}", flips) for i, step in enumerate(steps))
    return Judgement(solution_id=solution.id, judge="truth", steps=steps, outcome=is_correct(task, gold, solution))


def _flip(step: StepJudgement, key: str, flips: Flips) -> StepJudgement:
    """The step, or with its rate's probability a step with the other label and without explanation."""
    rate = flips.correct if step.label else flips.incorrect
    draw = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
    return StepJudgement(label=not step.label) if draw < rate else step
