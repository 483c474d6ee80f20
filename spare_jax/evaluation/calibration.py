"""Calibration: whether of the steps that score 0.8 eight in ten are right."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from spare_jax.evaluation.statistics import mean_or_none


def calibration(scores: Sequence[float], labels: Sequence[bool], bins: int = 10) -> dict[str, Any]:
    """Expected calibration error over bins of equal width, and the Brier score.

    Args:
      scores: probabilities of being right, one per step.
      labels: whether the step is right.
      bins: how many bins [0, 1] is cut into; empty ones are left out of the result.

    Returns:
      {"ece", "brier", "n", "bins": [{"low", "high", "score", "right", "n"}, ...]}: of each bin its edges, the mean
      score, the share of right steps, and the number of steps; ece and brier are None without steps.

    Raises:
      ValueError: a score lies outside [0, 1], or there are more or fewer labels than scores.
    """
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} scores and {len(labels)} labels: give one of each per step")
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError("calibration needs probabilities: a score lies outside [0, 1]")
    edges = np.linspace(0.0, 1.0, bins + 1)
    members = np.minimum((values * bins).astype(int), bins - 1)
    rows, error = [], 0.0
    for i in range(bins):
        inside = members == i
        if n := int(inside.sum()):
            score, frequency = float(values[inside].mean()), float(right[inside].mean())
            error += n / len(values) * abs(score - frequency)
            rows.append(
                {"low": float(edges[i]), "high": float(edges[i + 1]), "score": score, "right": frequency, "n": n}
            )
    return {
        "ece": error if rows else None,
        "brier": mean_or_none((values - right) ** 2),
        "n": len(values),
        "bins": rows,
    }
