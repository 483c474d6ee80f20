"""The multihop world as a task: problems and truth come from worlds/multihop.py."""

from spare_jax.tasks.generated import generated_task
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

TASK = generated_task(WORLD, RULE, stated_answer)
