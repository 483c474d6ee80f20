"""A world's exact verdicts as a Judgement, and the same with labels flipped at chosen rates.

A judge of a known label quality shows what labels of that quality buy (ARCHITECTURE.md, "Worlds and embedded models").
"""

import hashlib
from dataclasses import dataclass

from spare_jax.judges.outcome import is_correct
from spare_jax.keys import unlisted
from spare_jax.records import Gold, Judgement, Problem, Solution, StepJudgement
from spare_jax.tasks.task import Task, world_of


@dataclass(frozen=True)
class Flips:
    """Rates in [0, 1] at which a right step is called wrong (`correct`) and a wrong one right (`incorrect`).

    A step's draw depends on seed, solution id and step alone, so a higher rate flips what a lower one flipped too.
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
    """The world's verdict on every step. The outcome is never flipped, nor does it overwrite the last step.

    Raises:
      ValueError: the task's problems are not generated: nobody knows the truth of their steps.
    """
    steps = world_of(task).truth(problem, gold, solution.steps)
    if flips is not None:
        steps = tuple(_flip(step, f"{flips.seed}/{solution.id}/{i}", flips) for i, step in enumerate(steps))
    return Judgement(solution_id=solution.id, judge="truth", steps=steps, outcome=is_correct(task, gold, solution))


def _flip(step: StepJudgement, key: str, flips: Flips) -> StepJudgement:
    """A flipped step loses what spoke for its old label."""
    rate = flips.correct if step.label else flips.incorrect
    draw = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
    return StepJudgement(label=not step.label) if draw < rate else step
