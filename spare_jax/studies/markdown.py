"""Figures as the tables of docs/results show them, and the command that prints those of a study."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spare_jax.storage.jsonlines import StoreError, read_json


def print_tables(tables: Callable[[Mapping[str, Any]], str], arguments: Sequence[str]) -> None:
    """Print the `tables` of a study's file, the one argument; anything else ends with one clear line."""
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
    """A number with so many digits behind the point, "-" where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def rate(value: float | None) -> str:
    """A fraction with three digits: .873."""
    return number(value, 3).replace("0.", ".", 1) if value is not None and abs(value) < 1 else number(value, 3)


def rate_within(found: Mapping[str, float | None]) -> str:
    """A fraction and its interval: .873 [.851, .894]."""
    if found["mean"] is None:
        return "-"
    return f"{rate(found['mean'])} [{rate(found['low'])}, {rate(found['high'])}]"


def interval(found: Mapping[str, float | None]) -> str:
    """A difference and its interval, as statistics.bootstrap has them: +0.012 [-0.004, +0.031]."""
    if found["mean"] is None:
        return "-"
    low, high = ("-" if found[end] is None else f"{found[end]:+.3f}" for end in ("low", "high"))
    return f"{found['mean']:+.3f} [{low}, {high}]"
