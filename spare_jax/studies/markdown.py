"""Markdown for the tables of docs/results, and the command that prints the tables of a study."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spare_jax.storage.jsonlines import StoreError, read_json


def print_tables(tables: Callable[[Mapping[str, Any]], str], arguments: Sequence[str]) -> None:
    """The command of a study: print the `tables` of the JSON file that its one argument names; an error is one line."""
    if len(arguments) != 1:
        sys.exit("error: name the study's JSON file")
    try:
        print(tables(read_json(Path(arguments[0]))), end="")
    except StoreError as error:
        sys.exit(f"error: {error}")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def number(value: float | None, digits: int) -> str:
    """A number with `digits` decimal places; "-" for None."""
    return "-" if value is None else f"{value:,.{digits}f}"


def rate(value: float | None) -> str:
    """A fraction with three decimal places, such as .873; "-" for None."""
    return number(value, 3).replace("0.", ".", 1) if value is not None and abs(value) < 1 else number(value, 3)


def rate_within(figure: Mapping[str, float | None]) -> str:
    """A fraction and its interval ("mean", "low", "high"), such as .873 [.851, .894]; "-" where the mean is None."""
    if figure["mean"] is None:
        return "-"
    return f"{rate(figure['mean'])} [{rate(figure['low'])}, {rate(figure['high'])}]"


def interval(figure: Mapping[str, float | None]) -> str:
    """A difference and its interval, as from statistics.bootstrap, such as +0.012 [-0.004, +0.031]."""
    if figure["mean"] is None:
        return "-"
    low, high = ("-" if figure[end] is None else f"{figure[end]:+.3f}" for end in ("low", "high"))
    return f"{figure['mean']:+.3f} [{low}, {high}]"
