"""A judge on ProcessBench (arXiv:2412.06559): against the people's first errors, beside what needs no judge at all."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from spare_jax.evaluation.process_errors import (
    choose_threshold,
    first_error,
    first_error_metrics,
    fit_position_baseline,
    position_first_error,
)
from spare_jax.evaluation.statistics import ratio_or_none
from spare_jax.records import Judgement

DEV_ROWS = 100
_RESAMPLES = 2000


def is_dev(row: int, rows: int) -> bool:
    """Whether a row (from 0) belongs to the dev part: every k-th one, so that there are about 100; none of few rows."""
    return rows >= 2 * DEV_ROWS and row % (rows // DEV_ROWS) == 0


def process_bench_metrics(
    human: Sequence[Judgement], judgements: Sequence[Judgement], right: Sequence[bool], seed: int
) -> dict[str, Any]:
    """First-error metrics of a judge and of the trivial baselines.

    Thresholds (of judges that only score) and the position baseline are chosen on the dev rows alone; `test` is all
    the others, `dev` is there to be compared with it.

    Args:
      human: the labels, [row].
      judgements: the judge's, [row].
      right: whether the final answer is the accepted one, [row]; False where no answer is known.
      seed: of the bootstrap.

    Returns:
      {"threshold", "dev": {...}, "test": {"n", "judge", "never_wrong", "always_first", "position_only",
      "final_answer_only": first_error_metrics each, "judge" with "low" and "high", the 95 % bootstrap interval of f1
      over rows, "right_answer_wrong_process": {"n", "found", "exact"}}}
    """
    rows = range(len(human))
    dev = [i for i in rows if is_dev(i, len(human))]
    test = [i for i in rows if not is_dev(i, len(human))]
    truth = [judgement.first_error for judgement in human]
    n_steps = [len(judgement.steps) for judgement in human]
    scores = [[step.score for step in judgement.steps] for judgement in judgements]
    scored = all(step.label is None for judgement in judgements for step in judgement.steps)
    threshold = choose_threshold([scores[i] for i in dev], [truth[i] for i in dev]) if scored else None
    said = [
        judgement.first_error if threshold is None else first_error(steps, threshold)
        for judgement, steps in zip(judgements, scores, strict=True)
    ]
    position = fit_position_baseline([truth[i] for i in dev], [n_steps[i] for i in dev]) if dev else {}
    guesses = {
        "judge": said,
        "never_wrong": [None for _ in rows],
        "always_first": [0 for _ in rows],
        "position_only": [position_first_error(position, n) for n in n_steps],
        "final_answer_only": [None if right[i] else max(0, n_steps[i] - 1) for i in rows],
    }

    def part(chosen: Sequence[int]) -> dict[str, Any]:
        found: dict[str, Any] = {"n": len(chosen)}
        for name, guess in guesses.items():
            found[name] = first_error_metrics([guess[i] for i in chosen], [truth[i] for i in chosen])
        found["judge"] |= _interval([said[i] for i in chosen], [truth[i] for i in chosen], seed)
        hidden = [i for i in chosen if right[i] and truth[i] is not None]
        found["right_answer_wrong_process"] = {
            "n": len(hidden),
            "found": ratio_or_none(sum(said[i] is not None for i in hidden), len(hidden)),
            "exact": ratio_or_none(sum(said[i] == truth[i] for i in hidden), len(hidden)),
        }
        return found

    return {"threshold": threshold, "dev": part(dev), "test": part(test)}


def _interval(said: Sequence[int | None], truth: Sequence[int | None], seed: int) -> dict[str, float | None]:
    """The 95 % percentile interval of f1 over rows drawn anew."""
    hit = np.array([s == t for s, t in zip(said, truth, strict=True)], dtype=np.float64)
    error = np.array([t is not None for t in truth], dtype=bool)
    if len(hit) < 2 or error.all() or not error.any():
        return {"low": None, "high": None}
    drawn = np.random.default_rng(seed).integers(len(hit), size=(_RESAMPLES, len(hit)))
    hits, errors = hit[drawn], error[drawn]
    with np.errstate(invalid="ignore"):
        a = (hits * errors).sum(axis=1) / errors.sum(axis=1)
        b = (hits * ~errors).sum(axis=1) / (~errors).sum(axis=1)
        f1 = np.where(a + b > 0, 2 * a * b / (a + b), 0.0)
    low, high = np.nanpercentile(f1, [2.5, 97.5])
    return {"low": float(low), "high": float(high)}
