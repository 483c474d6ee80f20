"""Graded reasoning to show the annotator of SpaRP: scenes and candidates invented for this project.

Three candidates are all correct, five hold an error. Among them are several relations at once, relations that pass to
what is inside, and relations that only look as if they could be handed on.
"""

from spare_jax.tasks.exemplars import exemplar
from spare_jax.tasks.task import Exemplar


def exemplars() -> tuple[Exemplar, ...]:
    """The pool."""
    return _POOL


_SIDES = "Choose among: left, right, above, below, near, far."
_BOXES = "Choose among: inside, contains, left, right, above, below, touching."

_POOL = (
    exemplar(
        "sparp-exemplar-boxes",
        f"Where is the white ball, seen from the green ball? {_SIDES}",
        (
            "The white ball is inside box ONE and box ONE is above box TWO, so the white ball is above box TWO.",
            "The green ball is inside box TWO, so the white ball is above the green ball.",
            "The answer is above.",
        ),
        ("Box TWO is below box ONE.", "The first sentence, read from box TWO.", (1,), (), (), ()),
        (
            "So the green ball, which is inside box TWO, is below box ONE and all that is in it.",
            "What is inside a box lies where the box lies; it takes both boxes at once.",
            (1, 2), (1,), (1, 2), (),
        ),
        (
            "The white ball is inside box ONE, so it is above the green ball.",
            "The relation of r2, from the other side.",
            (3,), (2,), (2,), (),
        ),
        ("The answer is above.", "No other relation follows.", (), (3,), (3,), ()),
        context=("Box ONE is above box TWO.", "A green ball is inside box TWO.", "A white ball is inside box ONE."),
    ),
    exemplar(
        "sparp-exemplar-near",
        f"Where is the lamp, seen from the desk? {_SIDES}",
        (
            "The lamp is left of the chair and the chair is left of the desk, so the lamp is left of the desk.",
            "That the chair is near both does not say how far they are from each other.",
            "The answer is left.",
        ),
        (
            "The lamp is left of the chair and the chair is left of the desk, so the lamp is left of the desk.",
            "Left is handed on from one to the next, as in r1.",
            (1, 2), (), (1,), (),
        ),
        (
            "The lamp is near the chair and the chair is near the desk, so the lamp is near the desk.",
            "Near is not handed on: two things can each be near a third and not near each other.",
            (1, 2), (), (2,), ("RULE",),
        ),
        ("The answer is left, near.", "It takes over the wrong near.", (), (1, 2), (3,), ("PROPAGATED",)),
        context=("The lamp is left of the chair and near it.", "The chair is left of the desk and near it."),
    ),
    exemplar(
        "sparp-exemplar-tiles",
        f"Where is the black tile, seen from the grey tile? {_SIDES}",
        (
            "The black tile is left of the blue tile and above it.",
            "The blue tile is left of the grey tile and above it.",
            "So the black tile is left of the grey tile and above it.",
            "The answer is left, above.",
        ),
        (
            "The grey tile is right of the blue tile and below it.",
            "The second sentence, read from the grey tile.",
            (2,), (), (2,), (),
        ),
        (
            "The blue tile is right of the black one and below it, so the grey one is right of and below the black.",
            "Both relations are handed on, in the opposite direction to r3.",
            (1,), (1,), (1, 3), (),
        ),
        ("The answer is above, left.", "Seen from the grey tile; the order does not matter.", (), (2,), (4,), ()),
        context=(
            "The black tile is left of the blue tile and above it.",
            "The blue tile is left of the grey tile and above it.",
        ),
    ),
    exemplar(
        "sparp-exemplar-shelf",
        f"Where is the clock, seen from the vase? {_SIDES}",
        (
            "The clock is above the shelf and the shelf is above the vase, so the clock is above the vase.",
            "The clock is left of the shelf and the shelf is left of the vase, so the clock is left of the vase.",
            "The answer is left, above.",
        ),
        (
            "The clock is above the shelf and the shelf is above the vase, so the clock is above the vase.",
            "As in r1.",
            (1, 2), (), (1,), (),
        ),
        (
            "It is also left of the shelf, which is left of the vase, so it is left of the vase.",
            "As in r2.",
            (1, 2), (), (2,), (),
        ),
        (
            "The answer is above.",
            "The steps before have found left too, and all relations that hold are asked for.",
            (), (1, 2), (3,), ("ANSWER",),
        ),
        context=("The clock is above the shelf and left of it.", "The shelf is above the vase and left of it."),
    ),
    exemplar(
        "sparp-exemplar-map",
        f"Where is the mill, seen from the church? {_SIDES}",
        (
            "The church is left of the bridge, so the bridge is right of the church.",
            "The mill is right of the bridge, so the mill is right of the church.",
            "The answer is right.",
        ),
        (
            "The bridge is left of the church.",
            "The first sentence says it of the church: the church is left of the bridge.",
            (1,), (), (1,), ("RELATION",),
        ),
        (
            "The mill is beside the bridge and so left of the church too.",
            "It builds on the bridge being left of the church.",
            (2,), (1,), (2,), ("PROPAGATED",),
        ),
        ("The answer is left.", "It repeats the wrong side.", (), (2,), (3,), ("PROPAGATED",)),
        context=("On the map the church is left of the bridge.", "The mill is right of the bridge."),
    ),
    exemplar(
        "sparp-exemplar-drawer",
        f"Where is the coin, seen from the chest? {_BOXES}",
        (
            "The coin is inside the purse and the purse is inside the drawer, so the coin is inside the drawer.",
            "The drawer is inside the chest, so the coin is inside the chest.",
            "The answer is inside.",
        ),
        (
            "The purse is inside the drawer and the drawer is inside the chest, so the purse is inside the chest.",
            "Inside is handed on; it begins at the other end than the reference.",
            (2, 3), (), (2,), (),
        ),
        ("The coin in the purse is inside the chest, too.", "The same once more, as in r2.", (1,), (1,), (1, 2), ()),
        ("The answer is inside.", "Nothing says that it touches the chest.", (), (2,), (3,), ()),
        context=("A coin is inside a purse.", "The purse is inside a drawer.", "The drawer is inside a chest."),
    ),
    exemplar(
        "sparp-exemplar-garden",
        f"Where is the well, seen from the gate? {_SIDES}",
        (
            "The well is below the oak and the oak is below the gate, so the well is below the gate.",
            "The answer is below.",
        ),
        (
            "The well is far from the oak.",
            "No sentence says how far they are from each other.",
            (), (), (), ("UNSUPPORTED",),
        ),
        (
            "The well is below the oak and the oak is below the gate, so the well is below the gate.",
            "As in r1, without the step before.",
            (1, 2), (), (1,), (),
        ),
        ("The answer is below.", "The one relation that holds.", (), (2,), (2,), ()),
        context=("In the plan of a garden the well is below the oak.", "The oak is below the gate."),
    ),
    exemplar(
        "sparp-exemplar-rooms",
        f"Where is the key, seen from the cup? {_BOXES}",
        (
            "The key is inside case K and case K is right of case M, so the key is right of case M.",
            "The cup is inside case M, so the key is right of the cup.",
            "The answer is right.",
        ),
        (
            "The key is inside case K, so it is right of case M.",
            "As in r1.",
            (1, 2), (), (1,), (),
        ),
        (
            "Case K touches case M, so what is in them touches too.",
            "That two cases touch says nothing of what is inside them.",
            (2, 3), (), (), ("RULE",),
        ),
        (
            "The cup is inside case M, so the key is right of the cup.",
            "As in r2; it does not use the touching.",
            (3,), (1,), (2,), (),
        ),
        ("The answer is right, touching.", "Touching is the wrong step's.", (), (2, 3), (3,), ("PROPAGATED",)),
        context=("A key is inside case K.", "Case K is right of case M and touches it.", "A cup is inside case M."),
    ),
)  # fmt: skip
