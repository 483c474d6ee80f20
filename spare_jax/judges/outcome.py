"""Outcome labels: whether a solution's final answer is an accepted one."""

from typing import TYPE_CHECKING

from spare_jax.records import UNDECIDED, Gold, Judgement, Solution

if TYPE_CHECKING:
    from spare_jax.tasks.task import Task


def is_correct(task: "Task", gold: Gold, solution: Solution) -> bool | None:
    """Whether the solution's answer equals an accepted one; None where the comparison is undecided. A solution without
    an answer is wrong."""
    return task.answers_equal(solution.answer, gold.answers)


def require_answers(gold: Gold, judge: str) -> None:
    """Raises ValueError, in the name of `judge`, where no accepted answer is known."""
    if not gold.answers:
        raise ValueError(
            f"judge {judge}: no accepted answer of problem {gold.problem_id!r} is known: give it a reference that "
            "states its answer, or choose a judge that needs none (verify, reward_model)"
        )


def outcome(task: "Task", gold: Gold, solution: Solution) -> Judgement:
    """The outcome as a Judgement without steps; a failed one where the comparison is undecided."""
    right = is_correct(task, gold, solution)
    return Judgement(solution.id, "outcome", outcome=right, failure=UNDECIDED if right is None else "")
