"""What a step states: numbers, equations that hold or not, words."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spare_jax.judges import statements


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("He has $1,080.50 and 3 apples.", {Fraction("1080.5"), Fraction(3)}),
        (r"\frac{1}{2} of \boxed{24}", {Fraction(1), Fraction(2), Fraction(24)}),
        ("x1 and 2nd", {Fraction(2)}),
        ("none", set()),
    ],
)
def test_numbers(text, found):
    assert statements.numbers(text) == found


def test_words_that_are_numbers_and_ordinals_that_are_none():
    assert statements.said("Step 3: twice a dozen, and half of 8") == {2, 12, Fraction(1, 2), 8}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3 * 4", 14), ("(2 + 3) * 4", 20), ("2^10", 1024), ("-3 + 5", 2), ("10 / 4", Fraction(5, 2)),
        ("2(3 + 1)", 8), ("50%", Fraction(1, 2)), ("1 / 0", None), ("2^99", None), ("9^(1/2)", None), ("2 +", None),
        ("x + 1", None), ("(2", None), ("", None),
    ],
)  # fmt: skip
def test_arithmetic(text, value):
    found = statements.evaluate(text)
    assert (found[0] if found else None) == value


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("48 / 2 = 24 clips", True),
        ("48 / 2 = 25 clips", False),
        ("33 classes * 15 students/class = 495 students", True),
        ("495 students * $15/student = $7455.", False),
        ("10 / 3 = 3.33", True),  # rounded as far as it shows
        ("10 / 3 = 3.43", False),
        ("3x + 2 = 11", True),  # an equation with a variable says nothing of numbers
        ("2 + 3 = 5 + 1 = 6", False),
        ("the total = 7", True),
    ],
)
def test_equations(text, holds):
    assert (not statements.false_equations(text)) is holds


def test_results_operands_and_words():
    assert statements.results("48 / 2 = 24 clips, and x = 3 + 4") == {24}
    assert list(statements.operands("2 + 3 + 4 = 9 and 5 * 6 = 30")) == [("+", [2, 3, 4]), ("*", [5, 6])]
    assert statements.words("The total Number of red Marbles") == {"red", "marbles"}


@given(st.text(max_size=60) | st.text(alphabet="0123456789.,+-*/^()=%$\\ frac{}x", max_size=60))
def test_any_text_is_read(text):
    statements.said(text)
    statements.words(text)
    statements.results(text)
    statements.false_equations(text)
    list(statements.operands(text))
