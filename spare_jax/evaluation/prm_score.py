"""PRMScore: a judge on PRMBench (arXiv:2501.03124), over all steps and per class of error."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from spare_jax.evaluation.missing import UNLABELLED, headlines, tally
from spare_jax.evaluation.statistics import ratio_or_none

_RESAMPLES = 2000
Labels = Sequence[bool | None]


def prm_bench_metrics(
    truth: Sequence[Labels], judged: Sequence[Labels], classes: Sequence[str], seed: int, reasons: Sequence[str | None]
) -> dict[str, Any]:
    """PRMScores of a judge over all steps and per class of error, beside trivial baselines.

    Steps of all solutions are counted together, as by the benchmark's own program. Steps without truth are left out;
    steps that the judge gave no label are in none of its figures, and counted as missing.

    Args:
      truth, judged: labels, [row][step], True for right.
      classes: the class of error of each row, [row].
      seed: of the bootstrap.
      reasons: why a row was not judged, None where it was, [row].

    Returns:
      {"n": rows, "judge": {step_scores, "low", "high": the 95 % percentile interval of prm_score by resampling rows,
      "unlabelled_rate": of steps, "n": steps, "missing": steps by reason}, "never_wrong", "always_wrong": step_scores,
      "classes": {class: {"n": rows, step_scores, "missing"}}, "headline": {"judge.prm_score"}}, and "reasons" where the
      headline is refused (evaluation/missing.py).

    Raises:
      ValueError: a row has other numbers of labels than of steps.
    """
    counts = np.array([_counts(t, s) for t, s in zip(truth, judged, strict=True)], dtype=np.int64).reshape(-1, 4)
    missing = [
        [reason or UNLABELLED for t, s in zip(of_truth, of_judge, strict=True) if t is not None and s is None]
        for of_truth, of_judge, reason in zip(truth, judged, reasons, strict=True)
    ]
    whole = step_scores(counts.sum(axis=0))
    steps = [label for labels in judged for label in labels]
    real = [label for labels in truth for label in labels]
    rights, wrongs = real.count(True), real.count(False)
    named = np.array(classes)
    absent = tally(itertools.chain(*missing))
    headline, refused = headlines({"judge.prm_score": (whole["prm_score"], int(counts.sum()), absent)})
    return {
        "n": len(counts),
        "judge": whole
        | _interval(counts, seed)
        | {
            "unlabelled_rate": ratio_or_none(steps.count(None), len(steps)),
            "n": int(counts.sum()),
            "missing": absent,
        },
        "never_wrong": step_scores((rights, wrongs, 0, 0)),
        "always_wrong": step_scores((0, 0, wrongs, rights)),
        "classes": {
            name: {"n": int((named == name).sum())}
            | step_scores(counts[named == name].sum(axis=0))
            | {"missing": tally(r for row, kind in zip(missing, classes, strict=True) if kind == name for r in row)}
            for name in sorted(set(classes))
        },
        "headline": headline,
        **({"reasons": refused} if refused else {}),
    }


def step_scores(counts: Sequence[int] | np.ndarray) -> dict[str, float | None]:
    """The scores of steps counted as (right and called right, wrong and called right, wrong and called wrong, right and
    called wrong).

    Returns:
      {"prm_score": the mean of "f1", of right steps, and "negative_f1", of wrong ones; "step_accuracy"}. An F1 of a
      kind of step that there is none of is None, and the score is then the other one (our choice: the class
      multi_solutions has no wrong steps).
    """
    right_right, wrong_right, wrong_wrong, right_wrong = map(int, counts)
    errors = wrong_right + right_wrong
    # 2pr / (p + r) is 2 hits / (2 hits + misses + false alarms); 0 where nothing was hit.
    f1 = ratio_or_none(2 * right_right, 2 * right_right + errors) if right_right + right_wrong else None
    negative_f1 = ratio_or_none(2 * wrong_wrong, 2 * wrong_wrong + errors) if wrong_wrong + wrong_right else None
    known = [score for score in (f1, negative_f1) if score is not None]
    return {
        "prm_score": ratio_or_none(sum(known), len(known)),
        "f1": f1,
        "negative_f1": negative_f1,
        "step_accuracy": ratio_or_none(right_right + wrong_wrong, right_right + wrong_wrong + errors),
    }


def _counts(truth: Labels, judged: Labels) -> tuple[int, ...]:
    """The steps of one row, counted as `step_scores` takes them."""
    if len(truth) != len(judged):
        raise ValueError(f"{len(judged)} labels for a solution of {len(truth)} steps: give one for each")
    steps = list(zip(truth, judged, strict=True))
    cells = ((True, True), (False, True), (False, False), (True, False))  # none is of a step without truth or label
    return tuple(steps.count(cell) for cell in cells)


def _interval(counts: np.ndarray, seed: int) -> dict[str, float | None]:
    """The 95 % percentile interval of the PRMScore by resampling the rows in which a step is judged; None with fewer
    than two."""
    counts = counts[counts.sum(axis=1) > 0]
    if len(counts) < 2:
        return {"low": None, "high": None}
    drawn = np.random.default_rng(seed).multinomial(len(counts), [1 / len(counts)] * len(counts), _RESAMPLES)
    scores = [score for row in drawn @ counts if (score := step_scores(row)["prm_score"]) is not None]
    low, high = np.percentile(scores, [2.5, 97.5])
    return {"low": float(low), "high": float(high)}
