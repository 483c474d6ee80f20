"""First errors: ProcessBench's metric with thresholds and intervals; and a judge's step labels against the truth.

A first error is the index, from 0, of the first wrong step; None where every step is right; `Missing` where the labels
leave it open, since the first step that is not right has no label. Solutions with a missing first error are left out of
the metrics and counted.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from spare_jax.evaluation.missing import (
    NO_TRUTH,
    UNDECIDED,
    UNLABELLED,
    UNREADABLE,
    Missing,
    tally,
    why_not_judged,
)
from spare_jax.evaluation.statistics import RESAMPLES, mean_or_none, ratio_or_none
from spare_jax.records import Judgement, StepJudgement

FirstError = int | None | Missing
StepScores = Sequence[float | None] | Missing  # of one solution; missing where it was not judged

SWEEP = tuple(round(0.02 * i, 2) for i in range(1, 50))


def scores_of(judgement: Judgement) -> StepScores:
    """A judgement's scores, one per step; `Missing` where the solution was not judged."""
    if why := why_not_judged(judgement):
        return Missing(why)
    return [step.score for step in judgement.steps]


def first_error(step_scores: StepScores, threshold: float) -> FirstError:
    """The first step that scores below the threshold, None where no step does; missing where a step without a score
    comes before that: a reward model that did not read to the end has not found that there is no error."""
    if isinstance(step_scores, Missing):
        return step_scores
    return first_false([None if score is None else score >= threshold for score in step_scores])


def first_false(labels: Sequence[bool | None], otherwise: str = UNLABELLED) -> FirstError:
    """The first error by the labels of a solution's steps; `otherwise` is the reason where it is missing."""
    for i, label in enumerate(labels):
        if label is None:
            return Missing(otherwise)
        if not label:
            return i
    return None


def said_first_error(judgement: Judgement, n_steps: int) -> FirstError:
    """The first error by the labels that a judgement gives a solution of `n_steps` steps; missing where the solution
    was not judged, or the judge looks at no steps."""
    if why := why_not_judged(judgement):
        return Missing(why)
    labels = [step.label for step in judgement.steps]
    return first_false([*labels, *[None] * (n_steps - len(labels))])


def first_error_metrics(predicted: Sequence[FirstError], truth: Sequence[FirstError]) -> dict[str, Any]:
    """ProcessBench's metric (arXiv 2412.06559; SPARE section 4): f1 = 2ab / (a + b), 0 where a = b = 0.

    Returns:
      {"f1"; "error_accuracy", a, the share of the solutions with an error in which the exact step is found;
      "correct_accuracy", b, the share of those without in which none is; "n_error" and "n_correct", their numbers;
      "missing", how many solutions are in neither, by reason}. Rates are None where a class is empty.

    Raises:
      ValueError: there are more or fewer predictions than truths.
    """
    if len(predicted) != len(truth):
        raise ValueError(f"{len(predicted)} predictions for {len(truth)} solutions: give one for each")
    missing = [_why_missing(t, p) for p, t in zip(predicted, truth, strict=True)]
    pairs = [(p, t) for p, t, why in zip(predicted, truth, missing, strict=True) if not why]
    hits = [p == t for p, t in pairs if t is not None]
    passes = [p is None for p, t in pairs if t is None]
    a, b = mean_or_none(hits), mean_or_none(passes)
    return {
        "f1": None if a is None or b is None else float(_harmonic(a, b)),
        "error_accuracy": a,
        "correct_accuracy": b,
        "n_error": len(hits),
        "n_correct": len(passes),
        "missing": tally(missing),
    }


def _why_missing(*first_errors: FirstError) -> str | None:
    """The reason of the first of them that is missing."""
    return next((error.why for error in first_errors if isinstance(error, Missing)), None)


def first_error_interval(
    predicted: Sequence[FirstError],
    truth: Sequence[FirstError],
    problems: Sequence[str],
    seed: int,
) -> dict[str, float | None]:
    """The 95 % percentile interval of the first-error F1, by resampling problems with all their solutions.

    Args:
      predicted, truth: first errors, [solution].
      problems: each solution's problem, [solution].
      seed: of the resampling.

    Returns:
      {"low", "high"}; both None where a class is empty.
    """
    _, drawn = _resampled_f1([predicted], truth, problems, seed)
    if drawn is None:
        return {"low": None, "high": None}
    low, high = np.percentile(drawn[:, 0], [2.5, 97.5])
    return {"low": float(low), "high": float(high)}


def first_error_difference(
    ours: Sequence[FirstError],
    theirs: Sequence[FirstError],
    truth: Sequence[FirstError],
    problems: Sequence[str],
    seed: int,
) -> dict[str, float | None]:
    """The first-error F1 of `ours` less that of `theirs`, on solutions where neither is missing, with an interval as
    `first_error_interval` gives it.

    Returns:
      {"mean", "low", "high"}; all None where a class is empty.
    """
    whole, drawn = _resampled_f1([ours, theirs], truth, problems, seed)
    if whole is None or drawn is None:
        return dict.fromkeys(("mean", "low", "high"))
    low, high = np.percentile(drawn[:, 0] - drawn[:, 1], [2.5, 97.5])
    return {"mean": float(whole[0] - whole[1]), "low": float(low), "high": float(high)}


def right_answer_wrong_process(
    predicted: Sequence[FirstError], truth: Sequence[FirstError], right: Sequence[bool | None]
) -> dict[str, Any]:
    """Solutions whose final answer is right although a step is wrong, which no outcome shows: how many the judge finds.

    Args:
      predicted, truth: first errors, [solution].
      right: whether the final answer is the accepted one, [solution]; None where that is undecided.

    Returns:
      {"n", how many there are; "share", of the solutions with a right answer; "found", the share of them in which the
      judge calls some step wrong; "exact", in which it calls the first wrong one; "missing", how many solutions are in
      none of these, by reason}. Rates are None where they divide by 0.
    """
    rows = list(zip(predicted, truth, right, strict=True))
    missing = [UNDECIDED if answer is None else _why_missing(t, p) for p, t, answer in rows]
    right_answers = [(p, t) for (p, t, answer), why in zip(rows, missing, strict=True) if answer and not why]
    hidden = [(p, t) for p, t in right_answers if t is not None]
    return {
        "n": len(hidden),
        "share": ratio_or_none(len(hidden), len(right_answers)),
        "found": ratio_or_none(sum(p is not None for p, _ in hidden), len(hidden)),
        "exact": ratio_or_none(sum(p == t for p, t in hidden), len(hidden)),
        "missing": tally(missing),
    }


def threshold_sweep(
    step_scores: Sequence[StepScores],
    truth: Sequence[FirstError],
    thresholds: Sequence[float] | np.ndarray = SWEEP,
) -> list[dict[str, Any]]:
    """First-error metrics at many thresholds, where the first step below a threshold counts as the first error.

    Args:
      step_scores: [solution][step].
      truth: first error of each solution.
      thresholds: increasing.

    Returns:
      [{"threshold", "f1", "error_accuracy", "correct_accuracy", "n"}, ...] as in `first_error_metrics`; "n" solutions
      are judged at that threshold.
    """
    cuts = np.asarray(thresholds, dtype=np.float64)
    (a, n_error), (b, n_correct) = _class_accuracies(step_scores, truth, cuts)
    rows = zip(cuts, _harmonic(a, b), a, b, n_error + n_correct, strict=True)
    return [
        {
            "threshold": float(cut),
            "f1": _none_of_nan(f1),
            "error_accuracy": _none_of_nan(error_accuracy),
            "correct_accuracy": _none_of_nan(correct_accuracy),
            "n": int(n),
        }
        for cut, f1, error_accuracy, correct_accuracy, n in rows
    ]


def _none_of_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def choose_threshold(step_scores: Sequence[StepScores], truth: Sequence[FirstError]) -> float:
    """The threshold with the best first-error F1 on these (dev) solutions; of several the nearest to 0.5.

    All thresholds that make a difference are tried, one between each two neighbouring scores. 0.5 where F1 is
    undefined because all solutions are right, or all wrong.
    """
    read = [steps for steps in step_scores if not isinstance(steps, Missing)]
    known = {score for steps in read for score in steps if score is not None}
    edges = np.array(sorted(known | {0.0, 1.0}))
    between = (edges[1:] + edges[:-1]) / 2
    cuts = np.where(between > edges[:-1], between, edges[1:])  # neighbouring floats have nothing between them
    (a, _), (b, _) = _class_accuracies(step_scores, truth, cuts)
    f1 = _harmonic(a, b)
    if np.isnan(f1).all():
        return 0.5
    best = cuts[f1 >= np.nanmax(f1) - 1e-12]
    return float(best[np.abs(best - 0.5).argmin()])


def judge_metrics(judgements: Sequence[Judgement], truths: Sequence[Judgement]) -> dict[str, Any]:
    """A judge's step labels against the truth.

    Give the judge's own labels: a last label that the outcome has overwritten knows the answer and would flatter the
    judge. A step that the judge missed counts with the label that the `LabelPolicy` gave it, as in training. Steps
    without a label count in `unlabelled_rate` alone; solutions that were not judged count nowhere.

    Args:
      judgements: one per solution.
      truths: the truth on at least these solutions; a step may be of unknown truth.

    Returns:
      Of steps: step_accuracy, error_precision, error_recall, correct_precision, correct_recall, Cohen's kappa,
      missed_step_rate, unlabelled_rate. Of solutions: first_error_f1, which is over first_error_n of them and not over
      first_error_missing; parse_failure_rate (of those on which the judge wrote something); surplus_per_solution;
      tokens_per_solution, prompt and generated. And n_solutions that were judged, with n_steps, and `missing`. None
      where undefined.

    Raises:
      ValueError: a judgement without its truth.
    """
    truth_of = {truth.solution_id: truth for truth in truths}
    judged = [judgement for judgement in judgements if not judgement.failure]
    reasons = [why_not_judged(judgement) for judgement in judgements]
    read = [j for j, reason in zip(judgements, reasons, strict=True) if reason in (None, UNREADABLE)]
    judge_labels: list[bool | None] = []
    truth_labels: list[bool | None] = []
    predicted: list[FirstError] = []
    true_first: list[FirstError] = []
    missed = 0
    for judgement in judgements:
        if judgement.solution_id not in truth_of:
            raise ValueError(f"no truth for solution {judgement.solution_id!r}, judged by {judgement.judge}")
        labels = [step.label for step in truth_of[judgement.solution_id].steps]
        predicted.append(said_first_error(judgement, len(labels)))
        true_first.append(first_false(labels, NO_TRUTH))
        if not judgement.failure:
            absent = len(labels) - len(judgement.steps)
            steps = [*judgement.steps[: len(labels)], *[StepJudgement(missed=True)] * absent]
            judge_labels += [step.label for step in steps]
            truth_labels += labels
            missed += sum(step.missed for step in steps)
    first = first_error_metrics(predicted, true_first)
    pairs = [(s, r) for s, r in zip(judge_labels, truth_labels, strict=True) if s is not None and r is not None]
    called_error = sum(not s for s, _ in pairs)
    is_error = sum(not r for _, r in pairs)
    both_error = sum(not s and not r for s, r in pairs)
    both_correct = sum(s and r for s, r in pairs)
    n = len(judged)
    return {
        "step_accuracy": ratio_or_none(sum(s == r for s, r in pairs), len(pairs)),
        "error_precision": ratio_or_none(both_error, called_error),
        "error_recall": ratio_or_none(both_error, is_error),
        "correct_precision": ratio_or_none(both_correct, len(pairs) - called_error),
        "correct_recall": ratio_or_none(both_correct, len(pairs) - is_error),
        "kappa": kappa(judge_labels, truth_labels),
        "first_error_f1": first["f1"],
        "parse_failure_rate": ratio_or_none(sum(not j.parsed for j in read), len(read)),
        "missed_step_rate": ratio_or_none(missed, len(judge_labels)),
        "unlabelled_rate": ratio_or_none(sum(label is None for label in judge_labels), len(judge_labels)),
        "surplus_per_solution": ratio_or_none(sum(j.surplus for j in judged), n),
        "tokens_per_solution": ratio_or_none(sum(j.prompt_tokens + j.generated_tokens for j in judged), n),
        "n_solutions": n,
        "n_steps": len(judge_labels),
        "missing": tally(reasons),
        "first_error_n": first["n_error"] + first["n_correct"],
        "first_error_missing": first["missing"],
    }


def label_changes(
    before: Sequence[bool | None], after: Sequence[bool | None], truth: Sequence[bool | None]
) -> dict[str, int | None]:
    """How a second verification of the same steps changed their labels.

    Returns:
      {"n": steps labelled both times, "changed": by another label, "fixed": of these the wrong ones that became right,
      "broke": the right ones that became wrong}; the last two None where no truth is known.
    """
    pairs = [(a, b, t) for a, b, t in zip(before, after, truth, strict=True) if a is not None and b is not None]
    known = any(t is not None for _, _, t in pairs)
    return {
        "n": len(pairs),
        "changed": sum(a != b for a, b, _ in pairs),
        "fixed": sum(a != b == t for a, b, t in pairs) if known else None,
        "broke": sum(b != a == t for a, b, t in pairs) if known else None,
    }


def kappa(ours: Sequence[bool | None], theirs: Sequence[bool | None]) -> float | None:
    """Cohen's kappa over the steps that both have labelled: agreement beyond chance, 1 at most; None where there is no
    such step, or both would always agree by chance."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    if not pairs:
        return None
    a, b = np.array(pairs, dtype=np.float64).T
    by_chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return ratio_or_none(float((a == b).mean() - by_chance), float(1 - by_chance))


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b), 0 where both are 0."""
    return float(_harmonic(a, b))


def _harmonic(a, b):
    """`harmonic_mean` of floats or arrays."""
    total = np.asarray(a) + np.asarray(b)
    return 2.0 * np.asarray(a) * b / np.where(total > 0, total, 1.0)


def _resampled_f1(
    predicted: Sequence[Sequence[FirstError]],
    truth: Sequence[FirstError],
    problems: Sequence[str],
    seed: int,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """F1 of several predictions, [prediction], and of each resample of the problems, [resample, prediction]; None where
    a class is empty. Left out are solutions where a first error is missing, and resamples without both classes."""
    rows = [row for row in zip(problems, truth, *predicted, strict=True) if not _why_missing(*row[1:])]
    index = {problem: i for i, problem in enumerate(dict.fromkeys(row[0] for row in rows))}
    # Per problem and class (error, none): the number of solutions, and of those that each prediction has right.
    counts = np.zeros((len(index), 2, 1 + len(predicted)))
    for problem, true_error, *guesses in rows:
        counts[index[problem], int(true_error is None)] += (1, *(p == true_error for p in guesses))
    if not len(index) or (counts[:, :, 0].sum(axis=0) == 0).any():
        return None, None

    def f1(totals: np.ndarray) -> np.ndarray:
        rates = totals[..., 1:] / totals[..., :1]
        return _harmonic(rates[..., 0, :], rates[..., 1, :])

    drawn = np.random.default_rng(seed).multinomial(len(index), [1 / len(index)] * len(index), RESAMPLES)
    totals = np.einsum("rp,pck->rck", drawn, counts)
    return f1(counts.sum(axis=0)), f1(totals[(totals[:, :, 0] > 0).all(axis=1)])


def _class_accuracies(
    step_scores: Sequence[StepScores], truth: Sequence[FirstError], cuts: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """For solutions with an error and for those without: the accuracy at every threshold of `cuts`, NaN where no
    solution is judged, and the number of solutions that are judged there; both [cuts].

    A prediction is right for thresholds in one interval (low, high]: above the score of the first error, and not above
    the lowest score before it. So counting the ends of all intervals below each cut gives all accuracies at once. A
    solution whose steps have no score from some step on is judged where an earlier step scores below the cut.
    """
    if len(step_scores) != len(truth):
        raise ValueError(f"scores of {len(step_scores)} solutions, truth of {len(truth)}: give one for each")
    ends: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    for scores, error in zip(step_scores, truth, strict=True):
        if isinstance(error, Missing) or isinstance(scores, Missing):
            continue
        gap = next((i for i, score in enumerate(scores) if score is None), len(scores))
        values = [score for score in scores[:gap] if score is not None]
        whole = gap == len(scores)
        judged_above = -np.inf if whole else min(values, default=np.inf)
        if error is None:
            low, high = (-np.inf, min(values, default=np.inf)) if whole else (np.inf, np.inf)
        else:
            low = values[error] if error < len(values) else np.inf  # inf: the error itself has no score
            high = min(values[:error], default=np.inf)
        ends[error is not None].append((low, max(low, high), judged_above))
    accuracies = []
    for is_error in (True, False):
        low, high, judged_above = np.sort(np.array(ends[is_error]).reshape(-1, 3), axis=0).T
        # The intervals that begin below the cut, less those that end below it.
        inside = np.searchsorted(low, cuts, side="left") - np.searchsorted(high, cuts, side="left")
        judged = np.searchsorted(judged_above, cuts, side="left")
        accuracies.append((np.where(judged > 0, inside / np.maximum(judged, 1), np.nan), judged))
    return accuracies[0], accuracies[1]
