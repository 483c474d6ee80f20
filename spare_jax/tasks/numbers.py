"""Plain numbers, with units or words beside them: read as exact fractions, and written in one form."""

import re
from collections.abc import Iterator
from fractions import Fraction

from spare_jax.tasks.normalization import normalized

LONGEST_ANSWER = 500  # characters; a longer text is not read as an answer

# Up to 30 digits, perhaps with commas or blanks between thousands; more digits are noise, and costly.
DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,9}(?![0-9])|[1-9][0-9]{0,2}(?:[ ][0-9]{3}){1,9}(?![0-9])|[0-9]{1,30})"
_CURRENCY = r"(?:(?:US|CA|AU|HK)?[$£€¥₹₩]|(?:USD|EUR|GBP|Rs\.?)\s)"
_NUMBER = re.compile(
    rf"""(?<![\w.,^])(?<![0-9]:)(?<![\^_]\{{)
    (?P<sign>[-+])?
    {_CURRENCY}?
    (?P<inner_sign>[-+])?
    (?:(?P<whole>[0-9]{{1,30}})[ ](?=[0-9]+/[0-9]))?
    (?P<top>{DIGITS}(?:\.[0-9]{{1,30}})?|\.[0-9]{{1,30}})
    (?:[eE](?P<power>[-+]?[0-9]{{1,2}})(?!\w|\.[0-9])|/(?P<bottom>{DIGITS}))?
    (?![.,:/]?[0-9]|[eE^][-+]?[0-9])
    """,
    re.VERBOSE,
)
_FRACTION = re.compile(r"\\frac ?\{ ?([0-9,]{1,30}) ?\} ?\{ ?([0-9,]{1,30}) ?\}")
_GLUED = re.compile(r"(?<=[0-9])(?=\\frac)")

_SPACED_SIGN = re.compile(r"(?<=^[-+])\s+")

# What may be before a plain number, and between the number and the words after it.
_BEFORE = re.compile(
    r"(?:\s|[({]|\\approx|=|about|USD|EUR|GBP|US|Rs\.?|approximately|approx\.?|around|roughly|exactly|only|just)*",
    re.I,
)
_SIGNS = re.compile(r"\s?(?:%|°|€|£|¢|₹|[Pp]ercent\b|st\b|nd\b|rd\b|th\b|\^\s?\{?\s?(?:st|nd|rd|th)\s?\}?)?")
_WORD = re.compile(r"[^\W\d_]+(?:['’.-][^\W\d_]+)*")
UNITS = frozenset(
    """
    mm cm dm km nm kg mg ml mL cl dl kL in ft yd mi lb lbs oz pt qt gal hr hrs min mins sec secs ms am pm mph kph
    rpm cc ha kW kWh MW Hz kHz MHz GB MB KB kB TB USD EUR GBP CAD AUD INR JPY MPH AM PM
    """.split()  # noqa: SIM905
)
_BETWEEN = re.compile(r"[\s)},;:]*")
_RATE = re.compile(
    r"(?:\s?\^\s?(?:\{\s?[23]\s?\}|[23](?![0-9])))?(?:\s?/\s?(?:h|s|hr|min|sec|second|minute|hour|day)\b)?"
)
_AREA = re.compile(r"\s?\^\s?(?:\{\s?[23]\s?\}|[23](?![0-9]))")
# Words that are mathematics or logic, so that they cannot be ignored.
_MEANINGFUL = frozenset(
    """
    and or nor not but minus plus times divided by mod modulo squared cubed factorial pi sin cos tan cot sec csc
    arcsin arccos arctan sinh cosh tanh log ln lg exp sqrt root roots infinity inf max gcd lcm det if when where
    unless with more less fewer greater most least other otherwise alpha beta gamma delta epsilon theta lambda
    sigma omega phi psi rho tau mu nu xi half thirds quarters
    """.split()  # noqa: SIM905
)
_ARTICLES = frozenset(("a", "an", "A"))
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def parse_number(text: str) -> Fraction | None:
    r"""The number that `text` states; None where it states none, several, or an expression.

    Ignored beside the number: currency, a percent sign, degrees, separators of thousands, a known unit ("5cm",
    "15 cm^2"), words of two letters or more behind a blank ("72 eggs."), and LaTeX for these. "million" and the like
    are factors. Anything else makes the text an expression: single letters ("5x", "2 k"), operators, roots, powers,
    factorials, bars, labels ("A: 4"), words such as "or" and "pi". A percentage is the number before the sign, since a
    question for a percentage is answered by 20, not by 0.2.
    """
    if len(text) > LONGEST_ANSWER:
        return None
    if text[:1] in "\"'`" and text[:1] == text[-1:]:
        text = text[1:-1]
    text = _SPACED_SIGN.sub("", with_slashes(text))
    match = _NUMBER.search(text)
    if match is None or not _BEFORE.fullmatch(text, 0, match.start()):
        return None
    value = _value(match)
    scale = trailing_scale(text, match.end())
    return None if value is None or scale is None else value * scale


def trailing_scale(text: str, start: int) -> int | None:
    """The factor of the words behind a number, from `start` to the end of `text`: 1000 for "thousand eggs", mostly 1;
    None where they hold more than units and words to ignore."""
    at = _SIGNS.match(text, start).end()  # pyright: ignore[reportOptionalMemberAccess]: it matches nothing, too
    touching, scale, articles = at == start or text[at - 1] != " ", 1, True
    while match := _BETWEEN.match(text, at):
        spaced = " " in match[0] or not touching
        word = _WORD.match(text, match.end())
        if word is None:
            rest = text[match.end() :]
            return scale if re.fullmatch(r"[\s.,;:!?)}]*", rest) and (at > start or "!" not in rest) else None
        if not (spaced or word[0] in UNITS) or not is_filler(word[0], articles):
            return None
        scale *= SCALES.get(word[0].lower(), 1) if articles else 1
        at, touching, articles = word.end(), True, False
        if area := (_RATE if word[0] in UNITS else _AREA).match(text, at):
            at = area.end()
    return None


def is_filler(word: str, first: bool) -> bool:
    """Whether a word behind a number can be ignored, as "eggs" and "cm", unlike "x", "ab", "pi" and "or". `first`: it
    is the first word there."""
    lower = word.lower()
    if lower in _MEANINGFUL or word in UNITS:
        return word in UNITS
    if ord(word[0]) > 0x2FFF:  # a script whose words may have one letter
        return True
    if len(word) == 1:
        return not first and word in _ARTICLES
    if len(word) <= 3 and word.isupper():  # the name of a segment or a triangle
        return False
    if len(word) == 2:
        return not first or lower in _SHORT_WORDS
    return lower not in _ALPHABET


_SHORT_WORDS = frozenset(
    """
    of in is to on at as so per for am pm us he we it up my no
    """.split()  # noqa: SIM905
)


def canonical_number(value: Fraction) -> str:
    """One text per number: "72", "0.5", "-1/3"."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest, power = rest // prime, power + 1
        places = max(places, power)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    sign = "-" if value < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def numbers_in(text: str) -> Iterator[tuple[int, int, Fraction]]:
    """Start, end and value of every number in a text of `with_slashes`."""
    for match in _NUMBER.finditer(text):
        if (value := _value(match)) is not None:
            yield match.start(), match.end(), value


def with_slashes(text: str) -> str:
    r"""`normalized`, with "\frac{1}{2}" as "1/2" and "3\frac{1}{2}" as "3 1/2"."""
    text = normalized(text)
    return _FRACTION.sub(r"\1/\2", _GLUED.sub(" ", text))


def _value(match: re.Match[str]) -> Fraction | None:
    bottom = _integer(match["bottom"] or "1")
    if bottom == 0:
        return None
    value = Fraction(match["top"].replace(",", "").replace(" ", "")) / bottom + int(match["whole"] or 0)
    value *= Fraction(10) ** int(match["power"] or 0)
    return -value if "-" in (match["sign"], match["inner_sign"]) else value


def _integer(digits: str) -> int:
    return int(digits.replace(",", "").replace(" ", ""))
