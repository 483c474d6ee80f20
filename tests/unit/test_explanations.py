"""Whether labels say what the explanations beside them say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spare_jax.evaluation.explanations import explanation_agreement, reference_right, says_right
from spare_jax.records import Judgement, StepJudgement


@pytest.mark.parametrize(
    ("explanation", "says"),
    [
        ("answer: said 64, is 64", True),
        ("answer: said 64, is 46", False),
        ("Ben: said Ada + 5 = 7 + 5 = 12, is so", True),
        ("Ben: said Ada + 5 = 7 + 5 = 12, is 12", False),
        ("Ben: said Ada + 5 = 8, is 7", False),
        ("Ben: said Ada + 5, is 5", False),
        ("Cal: said north of Ben: -1,0 + 0,1 = -1,1, Cal is north of Ben: -1,0 + 0,1 = -1,1", True),
        ("Eve's doctor: said Eve's nurse: Ned, Eve's doctor is Ned", False),
        ("Eve's doctor: said Ned, Eve's doctor is Ned", True),
        ("Eve's doctor: said Ned, Ned's doctor is Ned", None),
        ("said 4, is 4", True),
        ("Gus: said Jon * 2 = 28 * 2 = 56, is not told", False),
        ("no value is stated", None),
        ("The step is right.", None),
        ("", None),
    ],
)
def test_an_explanation_that_compares(explanation, says):
    assert says_right(explanation) is says


@given(st.text())
def test_any_text_is_read(text):
    assert says_right(text) in (True, False, None)


def judged(*steps):
    return Judgement("s", "spare", tuple(StepJudgement(label=label, explanation=text) for label, text in steps))


def test_agreement_counts_comparing_explanations_with_a_label_alone():
    found = [
        judged((True, "a: said 1, is 1"), (False, "a: said 1, is 1"), (None, "a: said 1, is 1")),
        judged((False, "a: said 1, is 2"), (True, "a: said 1, is 2"), (False, "because"), (False, "a: said 3, is 4")),
    ]
    assert explanation_agreement(found) == {"explanation_agreement": 3 / 5, "explanations": 5}
    assert explanation_agreement([]) == {"explanation_agreement": None, "explanations": 0}


def test_references_are_counted_by_labelled_steps():
    found = [judged((True, ""), (True, ""), (False, "")), judged((None, ""), (True, ""))]
    assert reference_right(found) == {"reference_right": 3 / 4, "reference_steps": 4}
    assert reference_right([]) == {"reference_right": None, "reference_steps": 0}
