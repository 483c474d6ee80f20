"""The arithmetic world as a task: problems and truth come from worlds/arithmetic.py."""

import functools

from spare_jax.tasks.generated import generated_task, graded_candidates
from spare_jax.tasks.task import Exemplar
from spare_jax.worlds import arithmetic, arithmetic_mistakes
from spare_jax.worlds.arithmetic_judge import ERRORS, HELD_OUT_ERRORS, judge, stated_answer
from spare_jax.worlds.world import Distribution, World

WORLD = World(
    name="arithmetic",
    train=Distribution(),
    draw=arithmetic.draw,
    judge=judge,
    every_fact=arithmetic.every_count,
    another_solution=arithmetic.another_solution,
    work_begins="=",
    errors=ERRORS,
    held_out_errors=HELD_OUT_ERRORS,
    mistaken_solution=arithmetic_mistakes.mistaken_solution,
)

RULE = """\
A step is CORRECT if it follows from the story and from earlier correct steps, even if the reference goes another way, \
merges or splits steps, or does not need it. Operands may stand in any order. A step is INCORRECT if its arithmetic is \
off (NUMERIC), an operand has the wrong value (OPERAND), the story does not tell the relation it uses \
(COMPREHENSION), it uses a count that nothing has established (PREMISE), it builds on an earlier error (PROPAGATED), \
it states the wrong final answer (ANSWER), or it states no value (FORMAT)."""


@functools.cache
def exemplars() -> tuple[Exemplar, ...]:
    """Ten graded candidates on problems of a split of their own: five references, and five mistakes of a policy.

    The mistakes were sampled from an early tiny-base and picked by hand; the judgements are the world's own.
    """
    return graded_candidates(WORLD, 10, _MISTAKES)


_MISTAKES = {
    0: (
        "Ned read Mia + Ned = 29 + 23 = 52.",
        "Dan read  booksDan - 4 = 52 - 4 = 48.",
        "Ada read Dan * 2 = 48 * 2 = 96.",
        "The answer is 96.",
    ),
    1: ("Pam has Cal + 8 = 12 + 8 = 20.", "Leo has Pam + 16 = 20 + 16 = 36.", "The answer is 36."),
    2: (
        "Eve scored Cal - 3 = 21 - 3 = 18.",
        "Pam scored Eve + 11 = 21 + 11 = 32.",
        "Mia scored Pam + Ben = 9 + 32 = 41.",
        "Leo scored Mia + 8 = 41 + 8 = 49.",
        "The answer is 49.",
    ),
    4: ("Dan has Ola - 7 = 12 - 7 = 5.", "Eve has Fay + Dan = 5 + 12 = 17.", "The answer is 17."),
    6: (
        "Gus read Eve + Eve = 8 + 8 = 16.",
        "Mia read Gus + 19 = 16 + 19 = 35.",
        "Hal read Mia + 20 = 35 + 20 = 55.",
        "The answer is 55.",
    ),
}

TASK = generated_task(WORLD, RULE, stated_answer, exemplars)
