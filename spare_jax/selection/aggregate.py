"""One score for a solution from the scores of its steps."""

import math
from collections.abc import Sequence

AGGREGATIONS = ("last", "min", "product", "mean")


def aggregate(step_scores: Sequence[float | None], how: str) -> float | None:
    """The score of a solution (SPARE section 4: the last step's; min, product and mean are the alternatives).

    None where there is no step, or the last one has no score: what was not read to its end is not ranked by its
    beginning, whose product is the greater the less of it was read. Other steps without a score are left out.

    Args:
      step_scores: one score per step, in order; an outcome model gives a single one, equal under every `how`.
      how: one of AGGREGATIONS.

    Raises:
      ValueError: `how` is unknown.
    """
    if how not in AGGREGATIONS:
        raise ValueError(f"unknown aggregation {how!r}: use one of {', '.join(AGGREGATIONS)}")
    if not step_scores or step_scores[-1] is None:
        return None
    if how == "last":
        return step_scores[-1]
    known = [score for score in step_scores if score is not None]
    if how == "min":
        return min(known)
    if how == "product":
        return math.prod(known)
    return math.fsum(known) / len(known)
