"""How sure a difference is: the paired bootstrap over problems, and a t-test."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats


def mean_or_none(values: Sequence[float] | np.ndarray) -> float | None:
    """The mean as a plain float, None of nothing."""
    return float(np.mean(values)) if len(values) else None


def ratio_or_none(part: float, whole: float) -> float | None:
    """part / whole, None where the whole is empty."""
    return float(part / whole) if whole else None


def paired_bootstrap(
    ours: Sequence[float] | np.ndarray,
    theirs: Sequence[float] | np.ndarray,
    seed: int = 0,
    n_resamples: int = 10_000,
    level: float = 0.95,
) -> dict[str, Any]:
    """Mean of ours - theirs over problems, with the percentile interval of the bootstrap that resamples problems.

    Args:
      ours, theirs: one value per problem, in the same order; for instance 1.0 where the chosen answer was right.
      seed: of the resampling alone, so a figure does not change when another one is computed before it.
      n_resamples: bootstrap samples.
      level: probability that the interval should cover the true difference.

    Returns:
      {"mean", "low", "high", "p", "n"}; mean None without problems, low and high None with fewer than two. "p" is that
      of a one-tailed paired t-test, None where the differences do not vary.

    Raises:
      ValueError: the two are not of equal length, hence not paired.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} values: a paired comparison needs one of each per problem")
    difference = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    low = high = None
    if len(difference) > 1:
        interval = scipy.stats.bootstrap(
            (difference,),
            np.mean,
            n_resamples=n_resamples,
            batch=max(1, 4_000_000 // len(difference)),
            confidence_level=level,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return {
        "mean": mean_or_none(difference), "low": low, "high": high, "p": _p_greater(difference), "n": len(difference)
    }  # fmt: skip


def _p_greater(difference: np.ndarray) -> float | None:
    """The p-value of the one-tailed paired t-test that the mean lies above 0 (SPARE section 4 tests so); None where all
    differences are the same."""
    if len(difference) < 2 or np.ptp(difference) == 0:
        return None
    result: Any = scipy.stats.ttest_1samp(difference, 0.0, alternative="greater")
    return float(result.pvalue)
