r"""Measures the comparison of answers on every accepted answer of the data sets of mathematics.

usage: python -m spare_jax.studies.answers DIR [SHARE], where DIR has the directories gsm8k, math and competition, and
SHARE is the share of the answers that are tried, 1 by default. An answer must be equal, in both orders, to itself and
to every rewriting that keeps its meaning (REWRITINGS), and different from every change of its meaning (CHANGES). Prints
the tables of docs/tasks.md and every exception.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from spare_jax.studies.markdown import table
from spare_jax.tasks import competition, gsm8k, math
from spare_jax.tasks.answers import MathVerifier, answers_equal
from spare_jax.tasks.numbers import canonical_number, parse_number

Rule = Callable[[str], str | None]


class Wrong(NamedTuple):
    """A pair whose verdict is not the one that its rule demands."""

    rule: str
    gold: str
    other: str
    verdict: bool | None


class Tried(NamedTuple):
    """By rule, the numbers of pairs, of right verdicts and of undecided ones; and the pairs with another verdict."""

    pairs: Counter[str]
    right: Counter[str]
    undecided: Counter[str]
    exceptions: list[Wrong]


def _where(pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> Rule:
    """A rule that rewrites every match; None for an answer without one."""
    compiled = re.compile(pattern)

    def rule(text: str) -> str | None:
        changed = compiled.sub(replacement, text)
        return changed if changed != text else None

    return rule


def _whole(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]+", text) is not None


def _thousands(separator: str) -> Rule:
    def rule(text: str) -> str | None:
        return f"{int(text):,}".replace(",", separator) if _whole(text) and abs(int(text)) >= 1000 else None

    return rule


def _decimal(text: str) -> str | None:
    """A fraction with a finite decimal expansion, as that; None for anything else."""
    value = parse_number(text) if re.fullmatch(r"-?\\d?frac\{?[0-9]+\}?\{?[0-9]+\}?", text) else None
    number = canonical_number(value) if value is not None else "/"
    return None if "/" in number else number


def _items(text: str) -> list[str] | None:
    """The items of a list without brackets or blanks, such as "1,-2"; None for anything else."""
    parts = text.split(",")
    plain = re.fullmatch(r"[^()\[\]\\:=]+", text) and not re.search(r"[0-9],[0-9]{3}", text) and " " not in text.strip()
    return parts if len(parts) > 1 and plain and all(parts) else None


def _reversed_list(text: str) -> str | None:
    parts = _items(text)
    return ",".join(reversed(parts)) if parts and len(set(parts)) > 1 else None


def _sides(text: str) -> str | None:
    parts = re.split(r"(?<![<>!\\])=", text)
    return (
        f"{parts[1].strip()} = {parts[0].strip()}"
        if len(parts) == 2 and "," not in text and "text" not in text
        else None
    )


def _is_expression(text: str) -> bool:
    return not re.search(
        r"[=<>,:]|\\(?:le|ge|in|text|cup|pm|begin|mbox|ne|approx|to|infty)|[a-z]{3}(?<!rac|qrt|\\pi)", text
    )


def _is_exact(text: str) -> bool:
    return _is_expression(text) and "." not in text and "%" not in text


REWRITINGS: dict[str, Rule] = {
    "as it is": lambda text: text,
    "dollar signs": lambda text: f"${text}$",
    r"\( and \)": lambda text: rf"\({text}\)",
    "a full stop": lambda text: f"{text}.",
    r"\displaystyle": lambda text: rf"\displaystyle {text}",
    r"\boldsymbol": lambda text: rf"\boldsymbol{{{text}}}" if "\\text" not in text and len(text) < 150 else None,
    r"\dfrac": _where(r"\\t?frac", r"\\dfrac"),
    r"\tfrac": _where(r"\\d?frac", r"\\tfrac"),
    "a/b for a fraction": _where(r"^(-?)\\d?frac\{([0-9]+)\}\{([0-9]+)\}$", r"\1\2/\3"),
    "a decimal for a fraction": _decimal,
    r"\left and \right": lambda text: (
        re.sub(r"([(\[])", r"\\left\1", re.sub(r"([)\]])", r"\\right\1", text))
        if re.search(r"[(\[]", text) and not re.search(r"\\left|\\right|\\sqrt\[|\\text|\\big|\\\\\[", text)
        else None
    ),
    "blanks around + and =": _where(r"(?<=[\w})])\s*([+=])\s*(?=[\w\\{(])", r" \1 "),
    "thousands by commas": _thousands(","),
    r"thousands by {,} and \!": _thousands(",\\!"),
    "thousands by thin spaces": _thousands("\\,"),
    "thousands by blanks": _thousands(" "),
    "a unit in words": lambda text: rf"{text}\text{{ units}}" if re.fullmatch(r"-?[0-9./]+", text) else None,
    "a percent sign": lambda text: rf"{text}\%" if _whole(text) else None,
    "unary plus": lambda text: f"+{text}" if re.fullmatch(r"[0-9.]+|\\frac\{[0-9]+\}\{[0-9]+\}", text) else None,
    "x = before it": lambda text: f"x = {text}" if _is_expression(text) and "x" not in text else None,
    "sides exchanged": _sides,
    "another order of the list": _reversed_list,
    r"\times for \cdot": _where(r"\\cdot(?![a-z])", r"\\times"),
    "π for \\pi": _where(r"\\pi(?![a-z])", "π"),
    "√ for \\sqrt": _where(r"\\sqrt(?:\{([0-9])\}|([0-9]))(?![0-9])", r"√\1\2"),
    "full-width digits": _where(r"^[0-9]+$", lambda m: "".join(chr(ord(c) + 0xFEE0) for c in m[0])),
    "the sign − for -": _where(r"-", "−"),
    r"\mathrm around a letter": _where(r"(?<![a-zA-Z\\{])([xyn])(?![a-zA-Z])", r"\\mathrm{\1}"),
}  # fmt: skip


def _digit(text: str) -> str | None:
    """The text with another last digit."""
    digits = list(re.finditer(r"[0-9]", text))
    if not digits:
        return None
    at = digits[-1].start()
    return f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}"


def _first_digit(text: str) -> str | None:
    """The text with another first digit that is not 0."""
    digit = re.search(r"[1-9]", text)
    return f"{text[: digit.start()]}{int(digit[0]) % 9 + 1}{text[digit.end() :]}" if digit else None


def _letter(text: str) -> str | None:
    """The text with "w" in place of the first of x, y, n, a and t that stands alone, wherever it does."""
    letter = re.search(r"(?<![a-zA-Z\\])[xynat](?![a-zA-Z])", text) if "text" not in text else None
    if not letter or "w" in text:
        return None
    return re.sub(rf"(?<![a-zA-Z\\]){letter[0]}(?![a-zA-Z])", "w", text)


CHANGES: dict[str, Rule] = {
    "the first sign": lambda text: (
        (text[1:] if text.startswith("-") else f"-{text}")
        if re.match(r"-?[0-9\\a-z]", text) and _is_expression(text) and parse_number(text) != 0
        else None
    ),
    "+ for -, or - for +": lambda text: (
        re.sub(r"(?<=[\w}) ])[-+](?=[\w\\ {(])", lambda m: {"+": "-", "-": "+"}[m[0]], text, count=1)
        if re.search(r"(?<=[\w}) ])[-+](?=[\w\\ {(])", text) and "text" not in text
        else None
    ),
    "an exponent": _where(r"\^(?:\{([0-9])\}|([0-9])(?![0-9]))", lambda m: f"^{{{int(m[1] or m[2]) + 1}}}"),
    "a letter": _letter,
    "a factor of 2": lambda text: (
        f"2({text})" if _is_exact(text) and parse_number(text) != 0 else None
    ),
    "an endpoint": _where(r"^\(([^()]+,[^()]+)\]$|^\[([^()\[\]]+,[^()\[\]]+)\)$", lambda m: f"({m[1] or m[2]})"),
    "an endpoint that is closed": _where(r"^\[([^()\[\]]+,[^()\[\]]+)\]$", r"[\1)"),
    "the last digit": _digit,
    "the first digit": _first_digit,
    "one item less": lambda text: (
        ",".join(parts[1:]) if (parts := _items(text)) and len(set(parts)) == len(parts) else None
    ),
    "< for ≤, or ≤ for <": lambda text: (
        _where(r"\\leq?(?![a-z])", "<")(text) or _where(r"(?<!\\)<", r"\\le ")(text) if "text" not in text else None
    ),
    "the inverse": lambda text: (
        rf"\frac{{1}}{{{text}}}"
        if _is_exact(text) and parse_number(text) not in (0, 1, -1)
        else None
    ),
}  # fmt: skip


def golds(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The name and the accepted answers of every data set."""
    yield "GSM8K", [g.answers[0] for split in ("train", "test") for _, g in gsm8k.load(path / "gsm8k", split)]
    yield "MATH", [a for split in ("train", "test") for _, g in math.load(path / "math", split) for a in g.answers]
    yield "MATH-500", [a for _, g in math.load(path / "math", "math500") for a in g.answers]
    for name in competition.NAMES:
        loaded = competition.load(name, path / "competition" / name, "test")
        yield name, [a for _, g in loaded for a in g.answers]


def tried(answers: list[str], rules: dict[str, Rule], equal: bool, verifier: MathVerifier) -> Tried:
    """Compare every answer with what every rule makes of it, in both orders; `equal` is the verdict all should have."""
    counts = Tried(Counter(), Counter(), Counter(), [])
    known: dict[tuple[str, str], bool | None] = {}
    for answer in answers:
        for name, rule in rules.items():
            other = rule(answer)
            if other is None:
                continue
            pair = answer, other
            if pair not in known:
                one, back = answers_equal(answer, [other], verifier), answers_equal(other, [answer], verifier)
                known[pair] = one if one is back else not equal
                if known[pair] is not equal:
                    counts.exceptions.append(Wrong(name, answer, other, known[pair]))
            counts.pairs[name] += 1
            counts.right[name] += known[pair] is equal
            counts.undecided[name] += known[pair] is None
    return counts


def main(path: str, share: str = "1") -> None:
    step = round(1 / float(share))
    sets = [(name, answers[::step]) for name, answers in golds(Path(path))]
    with MathVerifier() as verifier:
        for title, rules, equal in (("Equal", REWRITINGS, True), ("Different", CHANGES, False)):
            by_set = [(name, answers, tried(answers, rules, equal, verifier)) for name, answers in sets]
            rows = [
                (
                    name,
                    f"{len(answers):,}",
                    *(f"{sum(counted.values()):,}" for counted in (t.pairs, t.right, t.undecided)),
                )
                for name, answers, t in by_set
            ]
            print(f"\n{title}, by data set\n")
            print(table(("answers of", "answers", "pairs", title.lower(), "undecided"), rows))
            by_rule = []
            for rule in rules:
                counted = [(t.pairs[rule], t.right[rule], t.undecided[rule]) for *_, t in by_set]
                by_rule.append((rule, *(f"{sum(column):,}" for column in zip(*counted, strict=True))))
            print(f"\n{title}, by rule\n")
            print(table(("rule", "pairs", title.lower(), "undecided"), by_rule))
            print("\nExceptions\n")
            for name, _, t in by_set:
                for e in t.exceptions:
                    print(f"- {name}, {e.rule}: `{e.gold}` and `{e.other}`: {e.verdict}")


if __name__ == "__main__":
    main(*sys.argv[1:])
