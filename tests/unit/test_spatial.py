"""The spatial world: its judge is exact on hand-written cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spare_jax.records import Gold, Problem
from spare_jax.tasks.spatial import TASK, WORLD
from spare_jax.worlds.spatial import DIRECTIONS, direction_of, minus, plus

# From Ada (0,0): Ben -1,0; Cal -1,1; Dan 0,1 (east of Cal, and told north of Ada too); Eve 0,2 is not needed.
FACTS = ("Ben = west Ada", "Ben = south Cal", "Dan = east Cal", "Dan = north Ada", "Eve = north Dan", "? = Dan Ada")
REFERENCE = (
    "Ben is west of Ada: 0,0 + -1,0 = -1,0.",
    "Cal is north of Ben: -1,0 + 0,1 = -1,1.",
    "Dan is east of Cal: -1,1 + 1,0 = 0,1.",
    "The answer is north.",
)
PROBLEM = Problem("p", "Where is Dan, seen from Ada?", tuple(f"sentence {i}" for i in range(5)))
GOLD = Gold("p", ("north",), REFERENCE, FACTS)


def verdicts(*steps):
    return WORLD.judge(PROBLEM, GOLD, steps)


def errors(*steps):
    return [verdict.error for verdict in verdicts(*steps)]


def test_the_reference_is_right_and_aligned():
    found = verdicts(*REFERENCE)
    assert [v.correct for v in found] == [True] * 4
    assert [v.reference for v in found] == [(1,), (2,), (3,), (4,)]
    assert [v.steps for v in found] == [(), (1,), (2,), (3,)]
    assert [v.context for v in found] == [(1,), (2,), (3,), ()]
    assert found[1].explanation == ("Cal: said north of Ben: -1,0 + 0,1 = -1,1, Cal is north of Ben: -1,0 + 0,1 = -1,1")
    assert found[3].explanation == "answer: said north, is north"


@pytest.mark.parametrize(
    "steps",
    [
        ("Dan is north of Ada: 0,0 + 0,1 = 0,1.", "The answer is north."),  # the other route
        ("Ben is west of Ada: -1,0.", "Cal is north of Ben: -1,1."),  # without the sum
        ("Ada is at 0,0.", *REFERENCE, "Dan is at 0,1."),  # said again
        (*REFERENCE[:3], "Eve is north of Dan: 0,1 + 0,1 = 0,2.", REFERENCE[3]),  # true and not needed
    ],
)
def test_valid_routes_are_right(steps):
    assert errors(*steps) == [None] * len(steps)


@pytest.mark.parametrize(
    "steps, expected",
    [
        (("Ben is west of Ada: 0,0 + -1,0 = 1,0.",), ["NUMERIC"]),
        (("Ben is west of Ada: 1,0.",), ["NUMERIC"]),
        (("Ben is west of Ada: 0,1 + -1,0 = -1,1.",), ["OPERAND"]),
        (("Ben is west of Ada: 0,0 + 1,0 = 1,0.",), ["OPERAND"]),  # not what west is
        (("Ben is east of Ada: 0,0 + 1,0 = 1,0.",), ["RELATION"]),
        (("Eve is north of Ada: 0,0 + 0,1 = 0,1.",), ["RELATION"]),
        (("Cal is north of Ben: -1,0 + 0,1 = -1,1.",), ["PREMISE"]),
        (("Dan is at 0,1.",), ["PREMISE"]),
        (("Dan is at 0,5.",), ["NUMERIC"]),
        (("The answer is north.",), ["PREMISE"]),
        (("The answer is south.",), ["ANSWER"]),
        (
            ("Ben is west of Ada: 0,0 + -1,0 = 1,0.", "Cal is north of Ben: 1,0 + 0,1 = 1,1."),
            ["NUMERIC", "PROPAGATED"],
        ),
        (("Dan is east of Ada: 0,0 + 1,0 = 1,0.", "The answer is east."), ["RELATION", "PROPAGATED"]),
        (("Ben is east of Ada: 0,0 + 1,0 = 1,0.", *REFERENCE), ["RELATION", None, None, None, None]),
        (("Ben is near Ada.", "", "Ben is west of Ada: 0,0 + -1,0.", "The answer is up."), ["FORMAT"] * 4),
    ],
)
def test_errors_and_their_categories(steps, expected):
    assert errors(*steps) == expected
    assert set(filter(None, expected)) <= set(WORLD.errors)


@given(st.lists(st.text(max_size=60) | st.text(alphabet="AdaBen isoftwaet:0123456789,-+=.", max_size=60), max_size=6))
def test_any_text_gets_a_verdict(steps):
    assert len(verdicts(*steps)) == len(steps)


point = st.tuples(st.integers(-99, 99), st.integers(-99, 99))


@given(point, point)
def test_directions_are_opposite_seen_from_the_other_one(a, b):
    there, back = direction_of(minus(a, b)), direction_of(minus(b, a))
    if a == b:
        assert there == back == "same place"
    else:
        assert plus(DIRECTIONS[there], DIRECTIONS[back]) == (0, 0)


def test_answers_come_from_the_last_step_alone():
    assert TASK.extract_answer(REFERENCE) == "north"
    assert TASK.extract_answer(REFERENCE[:2]) is None
