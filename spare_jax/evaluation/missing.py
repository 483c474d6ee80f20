"""What a figure is not over: the rows that were not judged, why in a word or two, and when a headline is refused.

A missing value is never a zero and never "no error found". Beside every figure of metrics.json stands the number of
rows that it is over, and `missing`, how many more there are by why they are missing: {"judge failed": 3}.
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
    """Stands where a value would, and says why there is none: one of the words above."""

    why: str


def tally(reasons: Iterable[str | None]) -> dict[str, int]:
    """How many rows are missing by why they are, in the order of the words; rows with None or "" are there."""
    return dict(sorted(Counter(why for why in reasons if why).items()))


def why_not_judged(judgement: Judgement) -> str | None:
    """Why a solution was not judged; None where it was."""
    if not judgement.failure:
        return None
    if judgement.failure == records.UNDECIDED:
        return UNDECIDED
    return UNREADABLE if judgement.text else FAILED


def refusal(n: int, missing: Mapping[str, int]) -> str:
    """Why no headline stands over `n` rows beside which others are `missing`; "" where one does."""
    absent = sum(missing.values())
    if absent <= REFUSED_ABOVE * (n + absent):
        return ""
    return (
        f"no headline: {absent} of {n + absent} are missing ({in_words(missing)}), more than {REFUSED_ABOVE:.0%}; "
        "the figures are over the others"
    )


def in_words(missing: Mapping[str, int]) -> str:
    """ "judge failed 3, undecided 1"."""
    return ", ".join(f"{why} {n}" for why, n in missing.items())


def headlines(
    figures: Mapping[str, tuple[float | None, int, Mapping[str, int]]],
) -> tuple[dict[str, float | None], dict[str, str]]:
    """The figures that may be quoted alone, each under its dotted path in metrics.json, None where it is refused; and
    the reasons of those, by path.

    Args:
      figures: by path, the figure, the number of rows that it is over, and those that are missing.
    """
    refused = {path: refusal(n, missing) for path, (_, n, missing) in figures.items()}
    return (
        {path: None if refused[path] else value for path, (value, _, _) in figures.items()},
        {f"headline.{path}": why for path, why in refused.items() if why},
    )
