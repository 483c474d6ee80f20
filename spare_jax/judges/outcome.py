"""Outcome labels: is the final answer the accepted one? (arXiv 2506.15498)"""

from typing import TYPE_CHECKING

from spare_jax.records import Gold, Judgement, Solution

if TYPE_CHECKING:
    from spare_jax.tasks.task import Task


def is_correct(task: "Task", gold: Gold, solution: Solution) -> bool:
    """Whether the solution's answer is one of the accepted ones; a solution without an answer is wrong."""
    return bool(task.answers_equal(solution.answer, gold.answers))


def outcome(task: "Task", gold: Gold, solution: Solution) -> Judgement:
    """The outcome as a Judgement, which says nothing of single steps."""
    return Judgement(solution_id=solution.id, judge="outcome", outcome=is_correct(task, gold, solution))
