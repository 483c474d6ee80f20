"""The multihop world as a task: problems and truth come from worlds/multihop.py."""

import functools

from spare_jax.tasks.generated import generated_task, graded_candidates
from spare_jax.tasks.task import Exemplar
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

RULE = """\
A step is CORRECT if the path that it names leads to the person that it says, by what the story tells, even if the \
reference goes another way, merges or splits steps, or does not need it. A step is INCORRECT if it names whom another \
relation of the same person gives (RELATION) or another wrong person (PERSON), if the story does not tell the path \
(UNTOLD), if it goes over somebody whose relation is not told to be the same (WAY), if it answers before the way to \
the answer is established (PREMISE), if its answer follows from an earlier error (PROPAGATED) or is wrong otherwise \
(ANSWER), or if it names no path (FORMAT)."""


@functools.cache
def exemplars() -> tuple[Exemplar, ...]:
    """Eight graded candidates on problems of a split of their own, half of them wrong, by hand: a wrong person, another
    relation, an untold one, a wrong answer. The right ones go over told links, merge steps, or take another order."""
    return graded_candidates(WORLD, 8, _CANDIDATES)


_CANDIDATES = {
    0: ("Eve's coach is Ada.", "Ada's doctor's coach is Ben.", "Ben's boss is Leo.", "The answer is Leo."),
    1: (
        "Mia's teacher is Kim.",
        "Kim's doctor is Ida's doctor: Dan.",
        "Dan's coach's boss is Pam.",
        "Ada's boss is Pam.",
        "The answer is Pam.",
    ),
    3: (
        "Ben's friend is Leo.",
        "Hal's friend is Kim's friend: Ned.",
        "Ned's tutor is Ida.",
        "Ida's boss is Eve's boss: Ben.",
        "The answer is Leo.",
    ),
    4: ("Fay's teacher is Ada.", "Ada's boss is Hal.", "The answer is Hal."),
    5: ("Cal's tutor is Ned.", "Ned's tutor is Ida.", "The answer is Ida."),
    7: ("Eve's boss is Dan.", "Dan's boss is Ada's boss: Pam.", "The answer is Dan."),
}

TASK = generated_task(WORLD, RULE, stated_answer, exemplars)
