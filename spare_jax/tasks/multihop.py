"""The multihop world as a task: problems and truth come from worlds/multihop.py."""

from collections.abc import Sequence

from spare_jax.tasks.task import Task
from spare_jax.worlds import multihop
from spare_jax.worlds.multihop_judge import ERRORS, HELD_OUT_ERRORS, judge, stated_answer
from spare_jax.worlds.world import World

WORLD = World(
    name="multihop",
    train=multihop.TRAIN,
    draw=multihop.draw,
    judge=judge,
    every_fact=multihop.every_fact,
    another_solution=multihop.another_solution,
    work_begins=" is",
    errors=ERRORS,
    held_out_errors=HELD_OUT_ERRORS,
)

INSTRUCTION = "Solve."

GUIDELINES = """\
You are a teacher who grades a student's solution step by step. You are given numbered sentences of a story [c1], \
[c2], ..., the question [q], the steps of a reference solution [r1], [r2], ... and the student's steps [s1], [s2], ...
For every student step, in order: say what it says of whom and, using the story and the reference, what is right; \
name the story sentences, the student's earlier steps and the reference steps that it rests on; then label it.
A step is CORRECT if the path that it names leads to the person that it says, by what the story tells, even if the \
reference goes another way, merges or splits steps, or does not need it. A step is INCORRECT if it names whom another \
relation of the same person gives (RELATION) or another wrong person (PERSON), if the story does not tell the path \
(UNTOLD), if it goes over somebody whose relation is not told to be the same (WAY), if it answers before the way to \
the answer is established (PREMISE), if its answer follows from an earlier error (PROPAGATED) or is wrong otherwise \
(ANSWER), or if it names no path (FORMAT).
Answer with a JSON list that has one object per student step, with the keys student_step, explanation, context, \
steps, reference, errors, label, in this order. The label is CORRECT or INCORRECT."""


def extract_answer(steps: Sequence[str]) -> str | None:
    """The name of the last step if that is an answer step ("The answer is Ben."), else None."""
    return stated_answer(steps[-1]) if steps else None


def answers_equal(predicted: str | None, golds: Sequence[str]) -> bool:
    """Names are equal or not; there is one gold answer."""
    return predicted is not None and predicted in golds


TASK = Task(
    name="multihop",
    instruction=INSTRUCTION,
    guidelines=GUIDELINES,
    error_categories=ERRORS,
    extract_answer=extract_answer,
    answers_equal=answers_equal,
    world=WORLD,
)
