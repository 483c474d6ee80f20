"""How sure a difference is: the paired bootstrap over problems, and a t-test.

A value that is missing is None or NaN: it is left out, and "n" says over how many the figure is.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

Values = Sequence[float | None] | np.ndarray


def known(values: Values) -> np.ndarray:
    """The values that are there, float64."""
    data = np.asarray(values, dtype=np.float64)
    return data[~np.isnan(data)]


def mean_or_none(values: Values) -> float | None:
    """The mean as a plain float, None of nothing."""
    data = known(values)
    return float(np.mean(data)) if len(data) else None


def ratio_or_none(part: float, whole: float) -> float | None:
    """part / whole, None where the whole is empty."""
    return float(part / whole) if whole else None


def bootstrap(values: Values, seed: int = 0, n_resamples: int = 10_000, level: float = 0.95) -> dict[str, Any]:
    """Mean of a value per problem, with the percentile interval of the bootstrap that resamples problems.

    Args:
      values: one per problem; for instance 1.0 where the chosen answer was right.
      seed: of the resampling alone, so a figure does not change when another one is computed before it.
      n_resamples: bootstrap samples.
      level: probability that the interval should cover the true mean.

    Returns:
      {"mean", "low", "high", "n"}; mean None without problems, low and high None with fewer than two.
    """
    data = known(values)
    low = high = None
    if len(data) > 1:
        interval = scipy.stats.bootstrap(
            (data,),
            np.mean,
            n_resamples=n_resamples,
            batch=max(1, 4_000_000 // len(data)),
            confidence_level=level,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return {"mean": mean_or_none(data), "low": low, "high": high, "n": len(data)}


def macro_bootstrap(
    groups: Sequence[Values], seed: int = 0, n_resamples: int = 10_000, level: float = 0.95
) -> dict[str, Any]:
    """Mean of the means of several groups (benchmarks), each as heavy as any other, with the percentile interval of the
    bootstrap that resamples the problems of every group by itself.

    Args:
      groups: of each group one value per problem.
      seed, n_resamples, level: as in `bootstrap`.

    Returns:
      {"mean", "low", "high", "n"}; "n" counts the problems of all groups. The first three are None where a group has no
      value.
    """
    there = [known(group) for group in groups]
    n = sum(map(len, there))
    if not all(map(len, there)):
        return {"mean": None, "low": None, "high": None, "n": n}
    rng = np.random.default_rng(seed)
    means = np.zeros(n_resamples)
    for group in there:
        for start in range(0, n_resamples, 1000):  # a few million indices at once
            count = min(1000, n_resamples - start)
            means[start : start + count] += group[rng.integers(len(group), size=(count, len(group)))].mean(axis=1)
    low, high = np.quantile(means / len(groups), [(1 - level) / 2, (1 + level) / 2])
    mean = float(np.mean([np.mean(group) for group in there]))
    return {"mean": mean, "low": float(low), "high": float(high), "n": n}


def paired_bootstrap(
    ours: Values,
    theirs: Values,
    seed: int = 0,
    n_resamples: int = 10_000,
    level: float = 0.95,
) -> dict[str, Any]:
    """`bootstrap` of ours - theirs, with the p-value that ours is the greater one.

    Args:
      ours, theirs: one value per problem, in the same order; a problem that either misses is left out.
      seed, n_resamples, level: as in `bootstrap`.

    Returns:
      {"mean", "low", "high", "n", "p"}; "p" is that of the one-tailed paired t-test over problems (SPARE, section 4),
      None where the differences do not vary.

    Raises:
      ValueError: the two are not of equal length, hence not paired.
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
    return bootstrap(a - b, seed, n_resamples, level) | {"p": p}
