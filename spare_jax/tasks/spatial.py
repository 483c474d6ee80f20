"""The spatial world as a task: problems and truth come from worlds/spatial.py."""

from spare_jax.tasks.generated import generated_task
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

TASK = generated_task(WORLD, RULE, stated_answer)
