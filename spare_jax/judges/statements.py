"""What a step of mathematical text states, without a model: its numbers, its equations, its words.

Text is parsed and never evaluated. Numbers are exact fractions.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence, Set
from fractions import Fraction

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,30})(?:\.[0-9]{1,30})?|\.[0-9]{1,30}"
_NUMBER = re.compile(rf"(?<![\w.])({_DIGITS})(?![\w]*[0-9])")
_TOKEN = re.compile(rf"\s*(?:({_DIGITS})(%)?|([-+*/^()√∛!|]))")
_PLAIN = (
    (re.compile(r"<<[^<>\n]*>>"), ""),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\[dt]?frac\s*([0-9])([0-9])"), r"(\1/\2)"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{[^{}]*\}"), " "),
    (re.compile(r"\\boxed\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\times|\\cdot|×|(?<=[0-9])\s*[xX]\s*(?=[0-9])"), "*"),
    (re.compile(r"\\div|÷"), "/"),
    (re.compile(r"[−–]"), "-"),
    (re.compile(r"\\approx|≈"), "="),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\(?:left|right)|\\[\[\]()!,;: ]|\\?\$|\*\*|&"), " "),
)
# Rewritten before `plain` where equations are read: units of area and volume, which are no powers; roots and powers, to
# one form each; and words and functions that compute, to "?", so that no equation with one is judged.
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_ARITHMETIC = (
    (
        re.compile(r"(?:\\(?:text|mathrm|mbox)\s*\{[^{}]*\}|(?<![\\A-Za-z])[A-Za-z]{1,12})\s*(?:\^\s*\{?[23]\}?|[²³])"),
        " ",
    ),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|°"), " "),
    (re.compile(r"\\sqrt\s*\[\s*3\s*\]|\bcbrt\b"), "∛"),
    (re.compile(r"\\sqrt(?![A-Za-z\[]|\s*\[)|\bsqrt\b"), "√"),
    (re.compile(r"(?<=[√∛^])\s*\{([^{}]*)\}"), r"(\1)"),
    (re.compile(r"(?<=[√∛^])\s*\{([^{}]*)\}"), r"(\1)"),
    (re.compile(r"\bsquared\b"), "^2"),
    (re.compile(r"\bcubed\b"), "^3"),
    (
        re.compile(
            r"\b(?:half|thirds?|quarters?|twice|double|triple|thrice|dozen|percent|factorial|choose|root|power|mod|over"
            r"|times|plus|minus|less|divided|multiplied|hundred|thousand|million|billion)\b|\b[A-Za-z]+(?=\()",
            re.IGNORECASE,
        ),
        " ? ",
    ),
)
_WORD = re.compile(r"(?<![\\\w])[A-Za-z][A-Za-z'’-]*(?:/[A-Za-z]+)*|/[A-Za-z]+")
_ASIDE = re.compile(r"\(\s*[A-Za-z][^()0-9]*\)")
_CLAUSE = re.compile(r"(?<=[.;!?])\s+(?=[A-Z\\])|\n|,\s+(?=[a-z])|:\s|\\\\")
_ORDINAL = re.compile(r"\b(?:[Ss]tep|[Ee]quation|[Cc]ase)\s*[0-9]+[:.)]?|^\s*\(?[0-9]+[.)]\s", re.MULTILINE)
_SPOKEN = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "hundred": 100,
    "once": 1, "each": 1, "twice": 2, "double": 2, "both": 2, "couple": 2, "pair": 2, "pairs": 2, "triple": 3,
    "thrice": 3, "half": Fraction(1, 2), "third": Fraction(1, 3), "thirds": 3, "quarter": Fraction(1, 4), "fourth": 4,
    "fifth": 5, "tenth": 10, "dozen": 12, "percent": 100, "week": 7, "weeks": 7, "days": 7, "month": 30, "year": 12,
    "years": 12, "hour": 60, "hours": 24, "minutes": 60,
}  # fmt: skip
_COMMON = frozenset(
    re.findall(
        r"[a-z']+",
        "the and for that this first second third next then now therefore let lets let's need find how many much total "
        "number with her his she they have has from which can are",
    )
)
_LONGEST = 4000  # characters of a step that are read


def plain(text: str) -> str:
    """`text` without LaTeX markup: fractions, signs and boxes as ASCII, and without the words in math mode."""
    text = text[:_LONGEST]
    for pattern, replacement in _PLAIN:
        text = pattern.sub(replacement, text)
    return text


def numbers(text: str) -> set[Fraction]:
    """The numbers that a text has in digits."""
    return {_fraction(match[1]) for match in _NUMBER.finditer(plain(text))}


def said(text: str) -> set[Fraction]:
    """The numbers that a text has in digits or words ("twice", "a dozen", "half"), without the 3 of "Step 3:"."""
    text = _ORDINAL.sub(" ", text[:_LONGEST])
    spoken = {Fraction(_SPOKEN[word]) for word in re.findall(r"[a-z]+", text.lower()) if word in _SPOKEN}
    return numbers(text) | spoken


def words(text: str) -> set[str]:
    """The words of a text in lower case, without very common words and those of one or two letters."""
    return {word for word in re.findall(r"[a-z']+", plain(text).lower()) if len(word) > 2} - _COMMON


def results(text: str) -> set[Fraction]:
    """The numbers that stand alone behind an equals sign."""
    alone_behind = set()
    for part in plain(text).split("=")[1:]:
        alone = re.match(rf"\s*-?\s*({_DIGITS})(?!\s*[*/+^(])(?!\s*-\s*[0-9])", _WORD.sub(" ", part))
        if alone:
            alone_behind.add(_fraction(alone[1]))
    return alone_behind


def operands(text: str) -> Iterator[tuple[str, list[Fraction]]]:
    """The operands of every sum, as ("+", terms), and of every product, as ("*", factors), of numbers in a text."""
    for part in re.split(r"=|\n", plain(text)):
        part = _WORD.sub(" ", part)
        for sign in "+*":
            for match in re.finditer(rf"(?:{_DIGITS})(?:\s*[{sign}]\s*(?:{_DIGITS}))+", part):
                yield sign, [_fraction(number) for number in re.findall(_DIGITS, match[0])]


def false_equations(text: str) -> list[tuple[Fraction, Fraction]]:
    """Both sides of every equation between numbers that does not hold. A result may be rounded to its decimal places.

    Words and units between the numbers are ignored. Equations with a variable, or with a root that is no fraction, are
    left out.
    """
    wrong = []
    for sides in _equations(text):
        for left, right in itertools.pairwise(sides):
            whole, stated = _last_expression(left), _first_expression(right)
            if whole and stated and whole[1] > 0 and not _close(whole[0], stated, right):
                exclaimed = _first_expression(right.rstrip("!")) if right.endswith("!") else None
                if not exclaimed or not _close(whole[0], exclaimed, right):
                    wrong.append((whole[0], stated[0]))
    return wrong


def on_the_way(text: str, known: Set[Fraction]) -> set[Fraction]:
    """The numbers inside of chains of equations that hold and end at a number that is `known`: 100 in
    "√(6² + 8²) = √100 = 10", if 10 is known."""
    inside: set[Fraction] = set()
    for sides in _equations(text):
        if len(sides) < 3:
            continue
        ends = (_last_expression(sides[0]), *(evaluate(side) for side in sides[1:-1]), _first_expression(sides[-1]))
        values = [end[0] for end in ends if end]
        if len(values) == len(sides) and values[-1] in known and len(set(values)) == 1:
            inside |= {_fraction(number) for side in sides[1:-1] for number in re.findall(_DIGITS, side)}
    return inside


def _equations(text: str) -> Iterator[list[str]]:
    """The sides of every chain of equations, without words; "?" stands for a variable or what is not understood."""
    text = text[:_LONGEST]
    for pattern, replacement in _ARITHMETIC:
        text = pattern.sub(replacement, text)
    text = re.sub("(?<=[0-9)|])\\s*([⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda match: "^" + match[1].translate(_RAISED), text)
    for clause in _CLAUSE.split(plain(text)):
        sides = [_WORD.sub(lambda m: " " if len(m[0]) > 1 else " ? ", _ASIDE.sub(" ", s)) for s in clause.split("=")]
        if len(sides) > 1:
            yield [re.sub(r"[,.;:]\s*$", "", side.strip()) for side in sides]


def _fraction(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _close(exact: Fraction, side: tuple[Fraction, int], text: str) -> bool:
    """Whether a side of an equation, given by its value, its number of operations and its text, equals `exact` within
    the rounding of its decimal places. A side with operations and no decimal places must be equal exactly."""
    stated, operations = side
    places = max((len(digits) for digits in re.findall(r"\.([0-9]+)", text)), default=0)
    if operations and not places:
        return exact == stated
    if abs(exact - stated) <= Fraction(51, 100) / 10**places:
        return True
    return places > 0 and stated != 0 and abs(exact - stated) <= abs(stated) / 200


def _last_expression(text: str) -> tuple[Fraction, int] | None:
    """The value of the longest arithmetic expression that ends `text`, and its number of operations; None where there
    is none, or where it is cut from something longer."""
    for start in range(len(text)):
        if start and text[start - 1] in "0123456789.":
            continue
        value = evaluate(text[start:])
        if value:
            return None if re.search(r"[\w?)}\]^/*+\\_√∛!|-]\s*$", text[:start]) else value
    return None


def _first_expression(text: str) -> tuple[Fraction, int] | None:
    for end in range(len(text), 0, -1):
        if end < len(text) and text[end] in "0123456789.":
            continue
        value = evaluate(text[:end])
        if value:
            return None if re.match(r"\s*[\w?({\[^/*+\\_√∛!|-]", text[end:]) else value
    return None


def evaluate(text: str) -> tuple[Fraction, int] | None:
    """The value of an arithmetic expression of numbers, and its number of operations; None where `text` is none.

    To bound the time, exponents are whole numbers up to 12, factorials go up to 20!, and expressions have at most 60
    tokens; anything beyond, and a root that is no fraction, gives None.
    """
    tokens: list[Fraction | str] = []
    text, at = text.strip(), 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or len(tokens) > 60:
            return None
        tokens.append(_fraction(match[1]) / (100 if match[2] else 1) if match[1] else match[3])
        at = match.end()
    if not tokens:
        return None
    try:
        value, rest = _sum(tokens, 0)
    except (ArithmeticError, IndexError):
        return None
    operations = sum(
        t in ("+", "*", "/", "^", "√", "∛", "!", "|") or (t == "-" and i > 0) for i, t in enumerate(tokens)
    )
    return (value, operations) if rest == len(tokens) else None


_Tokens = Sequence[Fraction | str]


def _sum(tokens: _Tokens, at: int) -> tuple[Fraction, int]:
    value, at = _product(tokens, at)
    while at < len(tokens) and tokens[at] in ("+", "-"):
        term, end = _product(tokens, at + 1)
        value, at = (value + term if tokens[at] == "+" else value - term), end
    return value, at


def _product(tokens: _Tokens, at: int) -> tuple[Fraction, int]:
    value, at = _power(tokens, at)
    while at < len(tokens) and tokens[at] in ("*", "/", "(", "√", "∛"):
        factor, end = _power(tokens, at + (tokens[at] in ("*", "/")))
        value, at = (value / factor if tokens[at] == "/" else value * factor), end
    return value, at


def _power(tokens: _Tokens, at: int) -> tuple[Fraction, int]:
    value, at = _factorial(tokens, at)
    if at < len(tokens) and tokens[at] == "^":
        exponent, at = _factorial(tokens, at + 1)
        if exponent.denominator != 1 or abs(exponent) > 12 or abs(value) > 10**6:
            raise ArithmeticError
        value = value ** int(exponent)
    return value, at


def _atom(tokens: _Tokens, at: int) -> tuple[Fraction, int]:
    token = tokens[at]
    if isinstance(token, Fraction):
        return token, at + 1
    if token == "-":
        value, at = _power(tokens, at + 1)
        return -value, at
    if token in ("√", "∛"):
        value, at = _factorial(tokens, at + 1)
        return _root(value, 2 if token == "√" else 3), at
    if token not in ("(", "|"):
        raise ArithmeticError
    value, at = _sum(tokens, at + 1)
    if tokens[at] != (")" if token == "(" else "|"):
        raise ArithmeticError
    return (value if token == "(" else abs(value)), at + 1


def _factorial(tokens: _Tokens, at: int) -> tuple[Fraction, int]:
    value, at = _atom(tokens, at)
    while at < len(tokens) and tokens[at] == "!":
        if value.denominator != 1 or not 0 <= value <= 20:
            raise ArithmeticError
        value, at = Fraction(math.factorial(int(value))), at + 1
    return value, at


def _root(value: Fraction, degree: int) -> Fraction:
    """The exact root of a fraction. Raises ArithmeticError where it is irrational."""
    if value < 0 or max(value.numerator, value.denominator) > 10**30:
        raise ArithmeticError
    parts = [round(part ** (1 / degree)) for part in (value.numerator, value.denominator)]
    root = Fraction(*parts) if parts[1] else Fraction(0)
    if root**degree != value:
        raise ArithmeticError
    return root
