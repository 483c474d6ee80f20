"""The multihop world: its judge is exact on hand-written cases, and every solution that it makes is right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spare_jax.records import Gold, Problem
from spare_jax.tasks.multihop import TASK, WORLD

# Ada's boss is Ben, his friend Cal (who is Dan's friend too, and told to be the same), his coach Eve.
FACTS = (
    "Ada boss = Ben", "Ben friend = Dan friend", "Cal coach = Eve", "Dan friend = Cal", "Ada tutor = Fay",
    "Cal boss = Gus", "? = Ada boss friend coach",
)  # fmt: skip
REFERENCE = ("Ada's boss is Ben.", "Ben's friend is Dan's friend: Cal.", "Cal's coach is Eve.", "The answer is Eve.")
PROBLEM = Problem("p", "Who is Ada's boss's friend's coach?", tuple(f"sentence {i}" for i in range(6)))
GOLD = Gold("p", ("Eve",), REFERENCE, FACTS)


def verdicts(*steps):
    return WORLD.judge(PROBLEM, GOLD, steps)


def errors(*steps):
    return [verdict.error for verdict in verdicts(*steps)]


def test_the_reference_is_right_and_aligned():
    found = verdicts(*REFERENCE)
    assert [v.correct for v in found] == [True] * 4
    assert [v.reference for v in found] == [(1,), (2,), (3,), (4,)]
    assert [v.steps for v in found] == [(), (1,), (2,), (3,)]
    assert [v.context for v in found] == [(1,), (2, 4), (3,), ()]
    assert [v.explanation for v in found] == [
        "Ada's boss: said Ben, Ada's boss is Ben",
        "Ben's friend: said Cal, Ben's friend is Cal",
        "Cal's coach: said Eve, Cal's coach is Eve",
        "answer: said Eve, is Eve",
    ]


@pytest.mark.parametrize(
    "steps",
    [
        ("The boss of Ada is Ben.", "The friend of the boss of Ada is Cal."),  # the other way to put it
        ("Ada's boss's friend's coach is Eve.", "The answer is Eve."),  # merged
        ("Cal's coach is Eve.", "Ben's friend is Cal.", "Ada's boss is Ben.", "The answer is Eve."),  # another order
        ("Dan's friend is Ben's friend: Cal.",),  # what is the same is so both ways
        ("Ada's tutor is Fay.", *REFERENCE),  # true and not needed
        (*REFERENCE[:1], *REFERENCE),  # said again
    ],
)
def test_valid_routes_are_right(steps):
    assert errors(*steps) == [None] * len(steps)


@pytest.mark.parametrize(
    "steps, expected",
    [
        (("Ada's boss is Fay.",), ["RELATION"]),  # who is her tutor
        (("Ada's boss is Gus.",), ["PERSON"]),
        (("Ada's coach is Eve.",), ["UNTOLD"]),
        (("Zoe's boss is Ben.",), ["UNTOLD"]),
        (("Ben's friend is Ada's friend: Cal.",), ["WAY"]),
        (("Ada's boss is Cal's boss: Ben.",), ["WAY"]),
        (("The answer is Eve.",), ["PREMISE"]),
        ((*REFERENCE[1:3], "The answer is Eve."), [None, None, "PREMISE"]),
        (("The answer is Fay.",), ["ANSWER"]),
        (("Ada's boss is Gus.", "The answer is Gus."), ["PERSON", "PROPAGATED"]),
        # An error does not touch what does not build on it, and a right step mends it.
        (("Ada's boss is Gus.", *REFERENCE), ["PERSON", None, None, None, None]),
        (("Ada's boss.", "", "Ada is Ben.", "Ada's cousin is Ben."), ["FORMAT"] * 4),
    ],
)
def test_errors_and_their_categories(steps, expected):
    assert errors(*steps) == expected
    assert set(filter(None, expected)) <= set(WORLD.errors)


def test_merged_steps_align_with_several_reference_steps():
    (verdict,) = verdicts("Ada's boss's friend is Cal.")
    assert (verdict.reference, verdict.context) == ((1, 2), (1, 2, 4))


@given(st.lists(st.text(max_size=60) | st.text(alphabet="AdaBenCl's boftheis:.", max_size=60), max_size=6))
def test_any_text_gets_a_verdict(steps):
    assert len(verdicts(*steps)) == len(steps)


def test_answers_come_from_the_last_step_alone():
    assert TASK.extract_answer(REFERENCE) == "Eve"
    assert TASK.extract_answer(REFERENCE[:2]) is None
    assert TASK.extract_answer(()) is None
