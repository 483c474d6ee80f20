"""The spatial world as a task: problems and truth come from worlds/spatial.py."""

import functools

from spare_jax.tasks.generated import generated_task, graded_candidates
from spare_jax.tasks.task import Exemplar
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

RULE = """\
A step is CORRECT if it says where somebody stands, by a relation that the story tells of the two (seen from either of \
them) and from a position that is established, even if the reference goes another way or does not need it. A step is \
INCORRECT if its sum is off (NUMERIC), a position or direction in the sum is wrong (OPERAND), the story does not tell \
the relation (RELATION), it starts from a position that nothing has established (PREMISE), it builds on an earlier \
error (PROPAGATED), it states the wrong final answer (ANSWER), or it states no position (FORMAT)."""


@functools.cache
def exemplars() -> tuple[Exemplar, ...]:
    """Eight graded candidates on problems of a split of their own, half of them wrong, by hand: a wrong direction in a
    sum, a relation turned round, a position that nothing has established, a wrong answer."""
    return graded_candidates(WORLD, 8, _CANDIDATES)


_CANDIDATES = {
    0: (
        "Jon is southeast of Kim: 0,0 + 1,1 = 1,1.",
        "Hal is southwest of Jon: 1,1 + -1,-1 = 0,0.",
        "Dan is southeast of Hal: 0,0 + 1,-1 = 1,-1.",
        "Pam is north of Dan: 1,-1 + 0,1 = 1,0.",
        "The answer is east.",
    ),
    1: (
        "Fay is northeast of Cal: 0,0 + 1,1 = 1,1.",
        "Eve is northeast of Cal: 0,0 + 1,1 = 1,1.",
        "Gus is southwest of Eve: 1,1 + -1,-1 = 0,0.",
        "The answer is same place.",
    ),
    2: (
        "Kim is northwest of Gus: 0,0 + -1,1 = -1,1.",
        "Fay is southeast of Kim: -1,1 + 1,-1 = 0,0.",
        "Ida is northwest of Fay: 0,0 + -1,1 = -1,1.",
        "The answer is northwest.",
    ),
    4: (
        "Gus is southeast of Ned: 0,-1 + 1,-1 = 1,-2.",
        "Ned is south of Ada: 0,0 + 0,-1 = 0,-1.",
        "Ben is east of Gus: 1,-2 + 1,0 = 2,-2.",
        "The answer is southeast.",
    ),
    6: ("Leo is south of Fay: 0,0 + 0,-1 = 0,-1.", "Ben is north of Leo: 0,-1 + 0,1 = 0,0.", "The answer is south."),
}

TASK = generated_task(WORLD, RULE, stated_answer, exemplars)
