"""The spatial world as a task: problems and truth come from worlds/spatial.py."""

from collections.abc import Sequence

from spare_jax.tasks.task import Task
from spare_jax.worlds import spatial
from spare_jax.worlds.spatial_judge import ERRORS, HELD_OUT_ERRORS, judge, stated_answer
from spare_jax.worlds.world import World

WORLD = World(
    name="spatial",
    train=spatial.TRAIN,
    draw=spatial.draw,
    judge=judge,
    every_fact=spatial.every_fact,
    another_solution=spatial.another_solution,
    work_begins=":",
    errors=ERRORS,
    held_out_errors=HELD_OUT_ERRORS,
)

INSTRUCTION = "Solve."

GUIDELINES = """\
You are a teacher who grades a student's solution step by step. You are given numbered sentences of a story [c1], \
[c2], ..., the question [q], the steps of a reference solution [r1], [r2], ... and the student's steps [s1], [s2], ...
For every student step, in order: say what it says of whom and, using the story and the reference, what is right; \
name the story sentences, the student's earlier steps and the reference steps that it rests on; then label it.
A step is CORRECT if it says where somebody stands, by a relation that the story tells of the two (seen from either of \
them) and from a position that is established, even if the reference goes another way or does not need it. A step is \
INCORRECT if its sum is off (NUMERIC), a position or direction in the sum is wrong (OPERAND), the story does not tell \
the relation (RELATION), it starts from a position that nothing has established (PREMISE), it builds on an earlier \
error (PROPAGATED), it states the wrong final answer (ANSWER), or it states no position (FORMAT).
Answer with a JSON list that has one object per student step, with the keys student_step, explanation, context, \
steps, reference, errors, label, in this order. The label is CORRECT or INCORRECT."""


def extract_answer(steps: Sequence[str]) -> str | None:
    """The direction of the last step if that is an answer step ("The answer is west."), else None."""
    return stated_answer(steps[-1]) if steps else None


def answers_equal(predicted: str | None, golds: Sequence[str]) -> bool:
    """Directions are equal or not; there is one gold answer."""
    return predicted is not None and predicted in golds


TASK = Task(
    name="spatial",
    instruction=INSTRUCTION,
    guidelines=GUIDELINES,
    error_categories=ERRORS,
    extract_answer=extract_answer,
    answers_equal=answers_equal,
    world=WORLD,
)
