"""Arithmetic over names and whole numbers: parse, evaluate, print. Nothing is ever handed to Python's `eval`."""

import dataclasses
import re
from collections.abc import Iterator

_TOKEN = re.compile(r"\s*(?:(\d{1,6})|([A-Z][a-z]+)|([-+*()]))")


@dataclasses.dataclass(frozen=True)
class Number:
    value: int

    def __str__(self) -> str:
        return str(self.value)


@dataclasses.dataclass(frozen=True)
class Name:
    name: str

    def __str__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True)
class Operation:
    """`left operator right`, operator one of + - *."""

    operator: str
    left: "Expression"
    right: "Expression"

    def __str__(self) -> str:
        def side(child: "Expression", is_right: bool) -> str:
            loose = isinstance(child, Operation) and (
                (self.operator == "*" and child.operator != "*")
                or (is_right and self.operator == "-" and child.operator != "*")
            )
            return f"({child})" if loose else str(child)

        return f"{side(self.left, False)} {self.operator} {side(self.right, True)}"


Expression = Number | Name | Operation


def parse(text: str) -> Expression | None:
    """The expression that the whole of `text` is; None where it is none, or has more than 64 tokens."""
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or len(tokens) > 64:
            return None
        tokens.append(match)
        at = match.end()
    if not tokens:
        return None
    expression, rest = _sum(tokens, 0)
    return expression if rest == len(tokens) else None


def evaluate(expression: Expression, values: dict[str, int]) -> int | None:
    """Value of `expression`, None where a name has no value."""
    match expression:
        case Number(value):
            return value
        case Name(name):
            return values.get(name)
        case Operation(operator, left, right):
            a, b = evaluate(left, values), evaluate(right, values)
            if a is None or b is None:
                return None
            return {"+": a + b, "-": a - b, "*": a * b}[operator]


def names(expression: Expression) -> tuple[str, ...]:
    """The names in `expression`, left to right."""
    return tuple(leaf.name for leaf in leaves(expression) if isinstance(leaf, Name))


def leaves(expression: Expression) -> Iterator[Number | Name]:
    """The numbers and names in `expression`, left to right."""
    if isinstance(expression, Operation):
        yield from leaves(expression.left)
        yield from leaves(expression.right)
    else:
        yield expression


def with_values(expression: Expression, values: dict[str, int]) -> Expression:
    """`expression` with every name that has a value replaced by it."""
    match expression:
        case Name(name) if name in values:
            return Number(values[name])
        case Operation(operator, left, right):
            return Operation(operator, with_values(left, values), with_values(right, values))
    return expression


def _sum(tokens, at):
    return _chain(tokens, at, ("+", "-"), _product)


def _product(tokens, at):
    return _chain(tokens, at, ("*",), _atom)


def _chain(tokens, at, operators, operand):
    left, at = operand(tokens, at)
    while left is not None and at < len(tokens) and tokens[at][3] in operators:
        operator = tokens[at][3]
        right, at = operand(tokens, at + 1)
        left = None if right is None else Operation(operator, left, right)
    return left, at


def _atom(tokens, at):
    if at >= len(tokens):
        return None, at
    number, name, mark = tokens[at].groups()
    if number:
        return Number(int(number)), at + 1
    if name:
        return Name(name), at + 1
    if mark != "(":
        return None, at
    inner, at = _sum(tokens, at + 1)
    if inner is None or at >= len(tokens) or tokens[at][3] != ")":
        return None, at
    return inner, at + 1
