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
        ("x + 1", None), ("(2", None), ("", None), ("√16", 4), ("2√(9/4)", 3), ("√2", None), ("∛27", 3), ("5!", 120),
        ("3!!", 720), ("99!", None), ("|2 - 7|", 5), ("|2", None), ("√", None), ("!", None), ("√-4", None),
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


TRUE = (
    "√(6² + 8²) = √100 = 10 cm", "√(36+64) = 10 cm", "sqrt(36 + 64) = 10", r"\sqrt{6^2 + 8^2} = \sqrt{100} = 10",
    r"\sqrt{36+64} = 10", r"\sqrt[3]{27} + 1 = 4", "∛8 + 1 = 3", "the square root of 36 + 64 = 10", "40 + 9 = 7²",
    "3² + 4² = 25", "(3 + 4)² = 49", "2^{3} + 1 = 9", "7 * 7 = 49 cm^2", "7 * 7 = 49 cm²",
    r"7 \cdot 7 = 49 \text{ cm}^2",
    "2 m³ + 3 m³ = 5 m³", r"90^\circ + 90^\circ = 180^\circ", "90° - 30° = 60°", "5! + 3 = 123", "4 * 3 * 2 = 4!",
    "2 + 2 = 4!", "|3 - 8| = 5", "10 - |-3| = 7", r"\left|3 - 8\right| = 5", "2 * 3 = |-6|", "√50 + 2 = 9.07",
    "2√9 = 6", "log(100) + 2 = 4", "6 squared + 8 squared = 100", "twice 5 + 1 = 11", "half of 10 + 2 = 7",
    "10 minus 3 + 2 = 9", r"\frac{1}{2} + \frac{1}{3} = \frac{5}{6}", r"\sqrt{2} + 1 = 2.414", "4 + 2 = √36",
    "2 + 1/2 = 5/2", "gcd(4, 6) + 1 = 3", "2² * 3² = 36", "10⁻² + 1 = 1.01", "√4 * √9 = 6",
)  # fmt: skip
FALSE = (
    "√(6² + 8²) = √100 = 11 cm", r"\sqrt{36+64} = 14", "3² + 4² = 24", "7 * 7 = 48 cm²", "5! + 3 = 122", "|3 - 8| = -5",
    "40 + 9 = 6²", "2√9 = 5", r"\sqrt[3]{27} = 9", "90° - 30° = 50°", r"\frac{1}{2} + \frac{1}{3} = \frac{2}{5}",
)  # fmt: skip


@pytest.mark.parametrize("text", TRUE)
def test_what_is_true_is_not_called_false(text):
    assert statements.false_equations(text) == []


@pytest.mark.parametrize("text", FALSE)
def test_what_is_false_is_found(text):
    assert statements.false_equations(text)


def test_numbers_on_the_way_to_a_known_one():
    assert statements.on_the_way("√(6² + 8²) = √100 = 10 cm", {Fraction(10)}) == {100}
    assert statements.on_the_way("2 + 3 * 4 = 2 + 12 = 14", {Fraction(14)}) == {2, 12}
    for text, known in (
        ("√(6² + 8²) = √100 = 10", 6),
        ("6² + 8² = 101 = 10", 10),
        ("48 * 2 = 96", 96),
        ("x = 3 = 4", 4),
    ):
        assert statements.on_the_way(text, {Fraction(known)}) == set()


def test_results_operands_and_words():
    assert statements.results("48 / 2 = 24 clips, and x = 3 + 4") == {24}
    assert list(statements.operands("2 + 3 + 4 = 9 and 5 * 6 = 30")) == [("+", [2, 3, 4]), ("*", [5, 6])]
    assert statements.words("The total Number of red Marbles") == {"red", "marbles"}


@given(st.text(max_size=60) | st.text(alphabet="0123456789.,+-*/^()=%$\\ frac{}x√∛!|²³⁻", max_size=60))
def test_any_text_is_read(text):
    statements.said(text)
    statements.words(text)
    statements.results(text)
    statements.false_equations(text)
    list(statements.operands(text))
