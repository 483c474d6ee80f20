"""Verdicts by the agreement of a problem's solutions: worked by hand, and what holds for all solutions."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spare_jax.judges.agreement import agreement, states
from spare_jax.prompts import verify
from spare_jax.records import Solution


def solutions(*given):
    """One per (answer, steps)."""
    return [Solution(f"p/{i}", "p", tuple(steps), answer, "stop") for i, (answer, steps) in enumerate(given)]


def same(answer, accepted):
    return answer in accepted


def labels(judgement):
    return [step.label for step in judgement.steps]


def test_the_usual_answer_is_right_and_what_its_solutions_state():
    found = agreement(
        solutions(
            ("7", ("Mia has 3 + 1 = 4.", "Ola has 4 + 3 = 7.", "The answer is 7.")),
            ("7", ("Ola has 3 + 4 = 7.", "The answer is 7.")),
            ("8", ("Mia has 2 * 2 = 4.", "Ola has 4 + 4 = 8.", "So Ola has 7.", "The answer is 8.")),
            (None, ("the answer is  7",)),
        ),
        seed=0,
        equal=same,
    )
    assert [said.outcome for said in found] == [True, True, False, False]
    # "4" stands in the first one's; "8" in none of theirs; "So Ola has 7." is no result and said by none of them.
    assert [labels(said) for said in found] == [[True] * 3, [True] * 2, [True, False, False, False], [True]]
    assert [said.judge for said in found] == ["agreement"] * 4 and found[2].solution_id == "p/2"
    assert found[2].text.splitlines()[:3] == [
        "## Step 1: step 1",
        "It states 4, as a solution with the usual answer does.",
        "**This step is correct.**",
    ]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("Mia has Ola * 2 = 9 * 2 = 18.", "18"),
        ("Cal is west of Gus: 0,0 + -1,1 = -1,1.", "-1,1"),
        ("That costs $3 + $4 = $7 in all.", "7"),
        ("Kim's  boss is\tNed.", "kim's boss is ned"),
        ("So x = y.", "so x = y"),
        ("", ""),
    ],
)
def test_what_a_step_states(step, said):
    assert states(step) == said


def test_where_nobody_answers_nothing_is_right():
    found = agreement(solutions((None, ("a = 1",)), (None, ()), (None, ("b",))), seed=0, equal=same)
    assert [(said.solution_id, said.outcome, labels(said)) for said in found] == [
        ("p/0", False, [False]),
        ("p/2", False, [False]),
    ]


STEP = st.text(max_size=12) | st.sampled_from(("# = 1", "* 2", "a = 1\x00", "1 = 2", "\ud800", "x\ny = 3"))
MANY = st.lists(st.tuples(st.sampled_from(("1", "2", None)), st.lists(STEP, max_size=3)), min_size=1, max_size=5)


@given(MANY, st.randoms())
def test_every_one_is_a_whole_verification_whatever_the_steps_are(given, random):
    many = solutions(*given)
    found = agreement(many, seed=3, equal=same)
    assert [said.solution_id for said in found] == [s.id for s in many if s.steps]
    for said in found:
        n_steps = len(said.steps)
        parsed = verify.parse(said.text, n_steps)
        assert parsed.is_whole(n_steps) and re.fullmatch(verify.grammar(n_steps).pattern, said.text)
        assert [parsed.steps[i + 1].correct for i in range(n_steps)] == labels(said)
        assert parsed.answer is said.outcome and (not said.outcome or all(labels(said)))
    shuffled = random.sample(many, len(many))
    assert sorted(agreement(shuffled, seed=3, equal=same), key=lambda said: said.solution_id) == found
