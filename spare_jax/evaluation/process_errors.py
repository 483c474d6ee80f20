"""Where is the first error? ProcessBench's measure, its threshold and intervals, and a judge against the truth.

A first error is the 0-based index of the first wrong step, None where every step is right.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from spare_jax.evaluation.statistics import mean_or_none, ratio_or_none
from spare_jax.records import Judgement, StepJudgement

SWEEP = tuple(round(0.02 * i, 2) for i in range(1, 50))


def first_error(step_scores: Sequence[float | None], threshold: float) -> int | None:
    """The first step that scores below the threshold; a step without a score is never one."""
    return next((i for i, score in enumerate(step_scores) if score is not None and score < threshold), None)


def first_error_metrics(predicted: Sequence[int | None], truth: Sequence[int | None]) -> dict[str, Any]:
    """ProcessBench's measure over solutions (SPARE section 4): f1 = 2ab / (a + b), 0 where a = b = 0.

    Returns:
      {"f1", "error_accuracy" (a: exact index, over solutions with an error), "correct_accuracy" (b: no error found,
      over solutions without), "n_error", "n_correct"}; None where a class is empty.

    Raises:
      ValueError: there are more or fewer predictions than truths.
    """
    if len(predicted) != len(truth):
        raise ValueError(f"{len(predicted)} predictions for {len(truth)} solutions: give one for each")
    hits = [p == t for p, t in zip(predicted, truth, strict=True) if t is not None]
    passes = [p is None for p, t in zip(predicted, truth, strict=True) if t is None]
    a, b = mean_or_none(hits), mean_or_none(passes)
    return {
        "f1": None if a is None or b is None else float(_harmonic(a, b)),
        "error_accuracy": a,
        "correct_accuracy": b,
        "n_error": len(hits),
        "n_correct": len(passes),
    }


def first_error_interval(
    predicted: Sequence[int | None],
    truth: Sequence[int | None],
    problems: Sequence[str],
    seed: int = 0,
    n_resamples: int = 10_000,
) -> dict[str, float | None]:
    """The 95 % percentile interval of the first-error F1 of the bootstrap that resamples problems, with all their
    solutions.

    Args:
      predicted, truth: first errors, [solution].
      problems: each solution's problem, [solution].

    Returns:
      {"low", "high"}; both None where a class is empty.
    """
    _, drawn = _resampled_f1([predicted], truth, problems, seed, n_resamples)
    if drawn is None:
        return {"low": None, "high": None}
    low, high = np.percentile(drawn[:, 0], [2.5, 97.5])
    return {"low": float(low), "high": float(high)}


def first_error_difference(
    ours: Sequence[int | None],
    theirs: Sequence[int | None],
    truth: Sequence[int | None],
    problems: Sequence[str],
    seed: int = 0,
    n_resamples: int = 10_000,
) -> dict[str, float | None]:
    """How much higher our first-error F1 is than theirs, on the same solutions, with the interval of
    `first_error_interval`.

    Returns:
      {"mean", "low", "high"}; all None where a class is empty.
    """
    whole, drawn = _resampled_f1([ours, theirs], truth, problems, seed, n_resamples)
    if whole is None or drawn is None:
        return dict.fromkeys(("mean", "low", "high"))
    low, high = np.percentile(drawn[:, 0] - drawn[:, 1], [2.5, 97.5])
    return {"mean": float(whole[0] - whole[1]), "low": float(low), "high": float(high)}


def right_answer_wrong_process(
    predicted: Sequence[int | None], truth: Sequence[int | None], right: Sequence[bool]
) -> dict[str, Any]:
    """What becomes of the solutions whose final answer is right and whose steps are not: no outcome tells of these.

    Args:
      predicted, truth: first errors, [solution].
      right: whether the final answer is the accepted one, [solution].

    Returns:
      {"n": how many there are, "share": of the solutions with a right answer, "found": the share in which any error was
      called, "exact": in which it was the first}; rates are None where they divide by nothing.
    """
    hidden = [(p, t) for p, t, answer in zip(predicted, truth, right, strict=True) if answer and t is not None]
    return {
        "n": len(hidden),
        "share": ratio_or_none(len(hidden), sum(right)),
        "found": ratio_or_none(sum(p is not None for p, _ in hidden), len(hidden)),
        "exact": ratio_or_none(sum(p == t for p, t in hidden), len(hidden)),
    }


def threshold_sweep(
    step_scores: Sequence[Sequence[float | None]],
    truth: Sequence[int | None],
    thresholds: Sequence[float] | np.ndarray = SWEEP,
) -> list[dict[str, Any]]:
    """`first_error_metrics` of the first step below each threshold.

    Args:
      step_scores: [solution][step].
      truth: first error of each solution.
      thresholds: where to measure.

    Returns:
      [{"threshold", "f1", "error_accuracy", "correct_accuracy"}, ...]
    """
    cuts = np.asarray(thresholds, dtype=np.float64)
    a, b = _class_accuracies(step_scores, truth, cuts)
    rows = []
    for i, cut in enumerate(cuts):
        error_accuracy = None if a is None else float(a[i])
        correct_accuracy = None if b is None else float(b[i])
        f1 = None if error_accuracy is None or correct_accuracy is None else _harmonic(error_accuracy, correct_accuracy)
        rows.append(
            {
                "threshold": float(cut),
                "f1": None if f1 is None else float(f1),
                "error_accuracy": error_accuracy,
                "correct_accuracy": correct_accuracy,
            }
        )
    return rows


def choose_threshold(
    step_scores: Sequence[Sequence[float | None]], truth: Sequence[int | None], default: float = 0.5
) -> float:
    """The threshold with the best F1 on these (dev) solutions; of equally good ones the nearest to 0.5.

    Looks at one threshold between each two neighbouring scores, so nothing better exists. `default` where F1 is
    undefined, that is, where the solutions are all right or all wrong.
    """
    known = {score for steps in step_scores for score in steps if score is not None}
    edges = np.array(sorted(known | {0.0, 1.0}))
    between = (edges[1:] + edges[:-1]) / 2
    cuts = np.where(between > edges[:-1], between, edges[1:])  # neighbouring floats have nothing between them
    a, b = _class_accuracies(step_scores, truth, cuts)
    if a is None or b is None:
        return default
    f1 = _harmonic(a, b)
    best = cuts[f1 >= f1.max() - 1e-12]
    return float(best[np.abs(best - 0.5).argmin()])


def judge_metrics(judgements: Sequence[Judgement], truths: Sequence[Judgement]) -> dict[str, Any]:
    """A judge's step labels against the truth; the positive class of precision and recall is "error".

    Give the labels that the judge itself wrote, before the last one is overwritten by the outcome: that policy
    knows the answer and would flatter the judge. A step that the judge missed counts with the label that the
    missed-step policy gave it, as training sees it; steps without any label enter no rate but `unlabelled_rate`.

    Args:
      judgements: one per solution.
      truths: the truth on at least these solutions. Steps whose truth is unknown enter no rate that needs it.

    Returns:
      step_accuracy, precision and recall of "error" and of "correct", kappa (Cohen's), first_error_f1;
      parse_failure_rate (of solutions); missed_step_rate, unlabelled_rate (of steps); surplus_per_solution,
      tokens_per_solution (prompt + generated); n_solutions, n_steps. None where undefined.

    Raises:
      ValueError: a judgement without its truth.
    """
    truth_of = {truth.solution_id: truth for truth in truths}
    said: list[bool | None] = []
    real: list[bool | None] = []
    missed, first_said, first_real = 0, [], []
    for judgement in judgements:
        if judgement.solution_id not in truth_of:
            raise ValueError(f"no truth for solution {judgement.solution_id!r}, judged by {judgement.judge}")
        truth = truth_of[judgement.solution_id]
        absent = len(truth.steps) - len(judgement.steps)
        steps = [*judgement.steps[: len(truth.steps)], *[StepJudgement(missed=True)] * absent]
        said += [step.label for step in steps]
        real += [step.label for step in truth.steps]
        missed += sum(step.missed for step in steps)
        if all(step.label is not None for step in truth.steps):
            first_said.append(next((i for i, step in enumerate(steps) if step.label is False), None))
            first_real.append(truth.first_error)
    pairs = [(s, r) for s, r in zip(said, real, strict=True) if s is not None and r is not None]
    called_error = sum(not s for s, _ in pairs)
    is_error = sum(not r for _, r in pairs)
    both_error = sum(not s and not r for s, r in pairs)
    both_correct = sum(s and r for s, r in pairs)
    n = len(judgements)
    return {
        "step_accuracy": ratio_or_none(sum(s == r for s, r in pairs), len(pairs)),
        "error_precision": ratio_or_none(both_error, called_error),
        "error_recall": ratio_or_none(both_error, is_error),
        "correct_precision": ratio_or_none(both_correct, len(pairs) - called_error),
        "correct_recall": ratio_or_none(both_correct, len(pairs) - is_error),
        "kappa": kappa(said, real),
        "first_error_f1": first_error_metrics(first_said, first_real)["f1"],
        "parse_failure_rate": ratio_or_none(sum(not j.parsed for j in judgements), n),
        "missed_step_rate": ratio_or_none(missed, len(said)),
        "unlabelled_rate": ratio_or_none(sum(label is None for label in said), len(said)),
        "surplus_per_solution": ratio_or_none(sum(j.surplus for j in judgements), n),
        "tokens_per_solution": ratio_or_none(sum(j.prompt_tokens + j.generated_tokens for j in judgements), n),
        "n_solutions": n,
        "n_steps": len(said),
    }


def label_changes(
    before: Sequence[bool | None], after: Sequence[bool | None], truth: Sequence[bool | None]
) -> dict[str, int | None]:
    """How many labels a second look changed, and how many of these it `fixed` and how many it `broke`.

    Returns:
      {"n": labels that are there before and after, "changed", "fixed", "broke"}; the last two None where no truth is
      known.
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
    """Cohen's kappa over the steps that both have labelled: agreement beyond that of two judges who label at these
    rates by chance; None where there is no such step, or chance alone would agree always."""
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
    predicted: Sequence[Sequence[int | None]],
    truth: Sequence[int | None],
    problems: Sequence[str],
    seed: int,
    n_resamples: int,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """F1 of several predictions, [prediction], and of each resample of the problems, [resample, prediction]; None where
    a class is empty. Resamples that lack a class, whose F1 is undefined, are left out."""
    index = {problem: i for i, problem in enumerate(dict.fromkeys(problems))}
    # Per problem: solutions with an error and without, and of these how many each prediction has right.
    counts = np.zeros((len(index), 2, 1 + len(predicted)))
    for problem, real, *said in zip(problems, truth, *predicted, strict=True):
        counts[index[problem], int(real is None)] += (1, *(p == real for p in said))
    if not len(index) or (counts[:, :, 0].sum(axis=0) == 0).any():
        return None, None

    def f1(totals: np.ndarray) -> np.ndarray:
        rates = totals[..., 1:] / totals[..., :1]
        return _harmonic(rates[..., 0, :], rates[..., 1, :])

    drawn = np.random.default_rng(seed).multinomial(len(index), [1 / len(index)] * len(index), n_resamples)
    totals = np.einsum("rp,pck->rck", drawn, counts)
    return f1(counts.sum(axis=0)), f1(totals[(totals[:, :, 0] > 0).all(axis=1)])


def _class_accuracies(
    step_scores: Sequence[Sequence[float | None]], truth: Sequence[int | None], cuts: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Error and correct accuracy at every cut, [cuts] each, None for a class without solutions.

    A solution is answered right for thresholds in one interval (low, high]: above the score of its first error,
    and not above the lowest score before it. So sorting the ends of all intervals gives every cut at once.
    """
    if len(step_scores) != len(truth):
        raise ValueError(f"scores of {len(step_scores)} solutions, truth of {len(truth)}: give one for each")
    ends: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for scores, error in zip(step_scores, truth, strict=True):
        values = [np.inf if score is None else score for score in scores]
        if error is not None and error >= len(values):  # the reward model did not read as far as the error
            values += [np.inf] * (error + 1 - len(values))
        low = -np.inf if error is None else values[error]
        high = min(values if error is None else values[:error], default=np.inf)
        ends[error is not None].append((low, max(low, high)))
    accuracies = []
    for is_error in (True, False):
        if not ends[is_error]:
            accuracies.append(None)
            continue
        low, high = np.sort(np.array(ends[is_error]), axis=0).T
        # How many intervals have begun below the cut, less those that have ended below it.
        inside = np.searchsorted(low, cuts, side="left") - np.searchsorted(high, cuts, side="left")
        accuracies.append(inside / len(low))
    return accuracies[0], accuracies[1]
