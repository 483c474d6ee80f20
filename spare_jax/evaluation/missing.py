"""Rows that are missing from a figure: why, how many, and from how many on a headline is refused.

A missing value never counts as 0 or as "no error". Beside every figure of metrics.json are the number of rows that it
is over and `missing`, how many rows it is not over, by reason: {"judge failed": 3}.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping

from spare_jax import records
from spare_jax.records import Judgement

FAILED = "judge failed"  # it could not be asked, or its program failed
UNREADABLE = "unreadable"  # what the judge wrote was cut off, or held no judgement
UNLABELLED = "unlabelled"  # the judge left open a step that the figure needs, or the answer
UNDECIDED = "undecided"  # nobody could tell whether the answer is the accepted one
NO_SOLUTION = "no solution"  # sampling the problem failed
NO_TRUTH = "no truth"  # nobody has labelled the solution

REFUSED_ABOVE = 0.05  # the share of rows that may be missing behind a headline


@dataclasses.dataclass(frozen=True)
class Missing:
    """In the place of a value: there is none, and `why` is one of the reasons above."""

    why: str


def tally(reasons: Iterable[str | None]) -> dict[str, int]:
    """The number of rows per reason, in alphabetical order; None or "" is no reason, the row is not missing."""
    return dict(sorted(Counter(why for why in reasons if why).items()))


def why_not_judged(judgement: Judgement) -> str | None:
    """Why a solution was not judged, as a reason above; None where it was."""
    if not judgement.failure:
        return None
    if judgement.failure == records.UNDECIDED:
        return UNDECIDED
    return UNREADABLE if judgement.text else FAILED


def refusal(n: int, missing: Mapping[str, int]) -> str:
    """Why a figure over `n` rows, beside which others are `missing`, is no headline; "" where it may be one."""
    absent = sum(missing.values())
    if absent <= REFUSED_ABOVE * (n + absent):
        return ""
    return (
        f"no headline: {absent} of {n + absent} are missing ({in_words(missing)}), more than {REFUSED_ABOVE:.0%}; "
        "the figures are over the others"
    )


def in_words(missing: Mapping[str, int]) -> str:
    """The tally as text: "judge failed 3, undecided 1"."""
    return ", ".join(f"{why} {n}" for why, n in missing.items())


def headlines(
    figures: Mapping[str, tuple[float | None, int, Mapping[str, int]]],
) -> tuple[dict[str, float | None], dict[str, str]]:
    """The headlines, by their dotted path in metrics.json, None where too many rows are missing; and the reasons of
    those that are None, by path.

    Args:
      figures: path -> (figure, number of rows that it is over, tally of the rows that are missing).
    """
    refused = {path: refusal(n, missing) for path, (_, n, missing) in figures.items()}
    return (
        {path: None if refused[path] else value for path, (value, _, _) in figures.items()},
        {f"headline.{path}": why for path, why in refused.items() if why},
    )
