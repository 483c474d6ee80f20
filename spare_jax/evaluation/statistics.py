"""Means with their uncertainty: the bootstrap over problems, paired for differences, and a t-test.

Missing values are None or NaN; they are left out, and "n" counts the others. Intervals are 95 % percentile intervals.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

Values = Sequence[float | None] | np.ndarray

RESAMPLES = 10_000


def known(values: Values) -> np.ndarray:
    """The values that are not missing, as float64."""
    data = np.asarray(values, dtype=np.float64)
    return data[~np.isnan(data)]


def mean_or_none(values: Values) -> float | None:
    """The mean of the values that are not missing; None where there is none."""
    data = known(values)
    return float(np.mean(data)) if len(data) else None


def ratio_or_none(part: float, whole: float) -> float | None:
    """part / whole; None where the whole is 0."""
    return float(part / whole) if whole else None


def bootstrap(values: Values, seed: int = 0) -> dict[str, Any]:
    """Mean of a value per problem, with its interval by resampling problems.

    Args:
      values: one per problem; for instance 1.0 where the chosen answer was right.
      seed: of the resampling.

    Returns:
      {"mean", "low", "high", "n"}; mean None without problems, low and high None with fewer than two.
    """
    data = known(values)
    low = high = None
    if len(data) > 1:
        interval = scipy.stats.bootstrap(
            (data,),
            np.mean,
            n_resamples=RESAMPLES,
            batch=max(1, 4_000_000 // len(data)),
            confidence_level=0.95,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return {"mean": mean_or_none(data), "low": low, "high": high, "n": len(data)}


def macro_bootstrap(groups: Sequence[Values], seed: int = 0) -> dict[str, Any]:
    """The unweighted mean of the means of several groups (benchmarks), with its interval by resampling the problems
    within every group.

    Args:
      groups: of each group one value per problem.
      seed: of the resampling.

    Returns:
      {"mean", "low", "high", "n"}; "n" counts the problems of all groups. The first three are None where a group has no
      value.
    """
    known_groups = [known(group) for group in groups]
    n = sum(map(len, known_groups))
    if not all(map(len, known_groups)):
        return {"mean": None, "low": None, "high": None, "n": n}
    rng = np.random.default_rng(seed)
    means = np.zeros(RESAMPLES)
    for group in known_groups:
        for start in range(0, RESAMPLES, 1000):  # a few million indices at once
            count = min(1000, RESAMPLES - start)
            means[start : start + count] += group[rng.integers(len(group), size=(count, len(group)))].mean(axis=1)
    low, high = np.quantile(means / len(groups), [(1 - 0.95) / 2, (1 + 0.95) / 2])
    mean = float(np.mean([np.mean(group) for group in known_groups]))
    return {"mean": mean, "low": float(low), "high": float(high), "n": n}


def paired_bootstrap(ours: Values, theirs: Values, seed: int = 0) -> dict[str, Any]:
    """`bootstrap` of the differences ours - theirs, with the p-value of the hypothesis that ours is greater.

    Args:
      ours, theirs: one value per problem, in the same order; a problem that misses either value is left out.
      seed: of the resampling.

    Returns:
      {"mean", "low", "high", "n", "p"}; "p" is that of the one-tailed paired t-test over problems (SPARE, section 4),
      None where the differences do not vary.

    Raises:
      ValueError: the two are not of equal length.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} values: a paired comparison needs one of each per problem")
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    both = ~np.isnan(a - b)
    a, b = a[both], b[both]
    p = None
    if len(a) > 1 and np.ptp(a - b) > 0:
        result: Any = scipy.stats.ttest_rel(a, b, alternative="greater")
        p = float(result.pvalue)
    return bootstrap(a - b, seed) | {"p": p}
