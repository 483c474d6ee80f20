"""One score for a solution from the scores of its steps."""

import math
from collections.abc import Sequence

AGGREGATIONS = ("last", "min", "product", "mean")


def aggregate(step_scores: Sequence[float | None], aggregation: str) -> float | None:
    """The score of a solution from those of its steps: the last one (SPARE section 4), their min, product or mean.

    None where there is no step or the last one has no score: otherwise a solution that was read in part would have the
    greater a product the less was read. Other steps without a score are left out.

    Args:
      step_scores: one score per step, in order; an outcome model gives a single one.
      aggregation: one of AGGREGATIONS.

    Raises:
      ValueError: `aggregation` is unknown.
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"unknown aggregation {aggregation!r}: use one of {', '.join(AGGREGATIONS)}")
    if not step_scores or step_scores[-1] is None:
        return None
    if aggregation == "last":
        return step_scores[-1]
    known = [score for score in step_scores if score is not None]
    if aggregation == "min":
        return min(known)
    if aggregation == "product":
        return math.prod(known)
    return math.fsum(known) / len(known)
