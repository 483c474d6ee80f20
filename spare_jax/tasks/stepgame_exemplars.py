"""Graded ways to show the annotator of StepGame: stories and candidates invented for this project.

The references are those of the task's own solver. Three candidates are all correct, four hold an error; among them are
merged moves, a needless step, another way than the shortest, and an error that nothing builds on.
"""

from collections.abc import Callable, Sequence

from spare_jax.tasks.exemplars import Graded, exemplar
from spare_jax.tasks.task import Exemplar

Solver = Callable[[Sequence[str], str, str, str], tuple[str, ...]]
"""(story, agent, origin, relation) -> the steps of a reference: `stepgame.solve`."""


def exemplars(solve: Solver) -> tuple[Exemplar, ...]:
    """The pool, with references by `solve`."""
    return tuple(
        exemplar(
            f"stepgame-exemplar-{name}",
            f"Where is {agent}, seen from {origin}?",
            solve(story, agent, origin, relation),
            *graded,
            context=story,
        )
        for name, story, (agent, origin, relation), graded in _STORIES
    )


_STORIES: tuple[tuple[str, tuple[str, ...], tuple[str, str, str], tuple[Graded, ...]], ...] = (
    (
        "merged",
        ("C is above B.", "B is to the left of A."),
        ("C", "A", "upper-left"),
        (
            (
                "C is upper-left of A: 0,0 + -1,0 + 0,1 = -1,1.",
                "It goes from A over B to C in one step, by both sentences.",
                (1, 2), (), (1, 2), (),
            ),
            ("The answer is upper-left.", "One to the left and one up.", (), (1,), (3,), ()),
        ),
    ),
    (
        "turned",
        ("D is below E.", "E lies on the right of F."),
        ("D", "F", "lower-right"),
        (
            (
                "E is left of F: 0,0 + -1,0 = -1,0.",
                "The sentence puts E on the right of F; this is where F is, seen from E.",
                (2,), (), (1,), ("RELATION",),
            ),
            (
                "D is below E: -1,0 + 0,-1 = -1,-1.",
                "The move is right, but it starts from the wrong place of E.",
                (1,), (1,), (2,), ("PROPAGATED",),
            ),
            ("The answer is lower-left.", "It repeats the wrong place.", (), (2,), (3,), ("PROPAGATED",)),
        ),
    ),
    (
        "slip",
        ("H is to the right of G.", "G is above K.", "J is above H.", "K is to the right of M."),
        ("H", "M", "upper-right"),
        (
            ("K is right of M: 0,0 + 1,0 = 1,0.", "As in r1.", (4,), (), (1,), ()),
            ("G is above K: 1,0 + 0,1 = 1,1.", "As in r2.", (2,), (1,), (2,), ()),
            (
                "H is right of G: 1,1 + 1,0 = 2,0.",
                "The move is right, but the sum is 2,1: nothing went down.",
                (1,), (2,), (3,), ("NUMERIC",),
            ),
            ("The answer is right.", "It reads the wrong sum 2,0.", (), (3,), (4,), ("PROPAGATED",)),
        ),
    ),
    (
        "needless",
        ("P is below N.", "Q is to the left of P.", "R is above Q.", "N is below T."),
        ("P", "T", "below"),
        (
            (
                "Q is left of P, and R is above Q.",
                "Nobody asks for Q and R, but the sentences say so.",
                (2, 3), (), (), (),
            ),
            ("P is below T: 0,0 + 0,-1 + 0,-1 = 0,-2.", "Both moves at once, by N.", (1, 4), (), (1, 2), ()),
            ("The answer is below.", "Two down and none aside.", (), (2,), (3,), ()),
        ),
    ),
    (
        "answer",
        ("V is to the left of U.", "W is above V.", "X is above W."),
        ("X", "U", "upper-left"),
        (
            ("V is left of U: 0,0 + -1,0 = -1,0.", "As in r1.", (1,), (), (1,), ()),
            ("W is above V: -1,0 + 0,1 = -1,1.", "As in r2.", (2,), (1,), (2,), ()),
            ("X is above W: -1,1 + 0,1 = -1,2.", "As in r3.", (3,), (2,), (3,), ()),
            (
                "The answer is above.",
                "It is also to the left, at -1,2; that there are more moves up does not change it.",
                (), (3,), (4,), ("ANSWER",),
            ),
        ),
    ),
    (
        "round",
        ("B is to the right of A.", "C is above B.", "D is to the left of C.", "D is above A.", "E is below A."),
        ("D", "E", "above"),
        (
            (
                "A is above E: 0,0 + 0,1 = 0,1.",
                "E is below A, read from the other side.",
                (5,), (), (1,), (),
            ),
            (
                "C is upper-right of A: 0,1 + 1,0 + 0,1 = 1,2.",
                "A longer way than the reference's, by B.",
                (1, 2), (1,), (), (),
            ),
            ("D is left of C: 1,2 + -1,0 = 0,2.", "It comes to the place of r2.", (3,), (2,), (2,), ()),
            ("The answer is above.", "Two up and none aside.", (), (3,), (3,), ()),
        ),
    ),
    (
        "untold",
        ("L is to the left of K.", "S is to the left of K.", "K is above Z."),
        ("K", "Z", "above"),
        (
            (
                "L is above S: 0,0 + 0,1 = 0,1.",
                "No sentence tells of these two, and the story gives both the same place.",
                (), (), (), ("RELATION",),
            ),
            ("K is above Z: 0,0 + 0,1 = 0,1.", "As in r1, without the step before.", (3,), (), (1,), ()),
            ("The answer is above.", "One up.", (), (2,), (2,), ()),
        ),
    ),
)  # fmt: skip
