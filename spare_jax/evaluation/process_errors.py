"""Where is the first error? ProcessBench's measure, its threshold and baseline, and a judge against the truth.

A first error is the 0-based index of the first wrong step, None where every step is right.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spare_jax.evaluation.statistics import mean_or_none, ratio_or_none
from spare_jax.records import Judgement, StepJudgement

# For each number of steps, which step to call the first error (None: none of them).
PositionBaseline = Mapping[int, int | None]

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


def first_error_difference(
    ours: Sequence[int | None],
    theirs: Sequence[int | None],
    truth: Sequence[int | None],
    problems: Sequence[str],
    seed: int = 0,
    n_resamples: int = 10_000,
) -> dict[str, float | None]:
    """How much higher our first-error F1 is than theirs, with the 95 % percentile interval of the bootstrap that
    resamples problems, with all their solutions.

    Args:
      ours, theirs, truth: first errors, [solution].
      problems: each solution's problem, [solution].

    Returns:
      {"mean", "low", "high"}; all None where a class is empty.
    """
    index = {problem: i for i, problem in enumerate(dict.fromkeys(problems))}
    # Per problem: solutions with an error and without, and of these how many each side has right.
    counts = np.zeros((len(index), 2, 3))
    for problem, real, a, b in zip(problems, truth, ours, theirs, strict=True):
        counts[index[problem], int(real is None)] += (1, a == real, b == real)
    if not len(index) or (counts[:, :, 0].sum(axis=0) == 0).any():
        return dict.fromkeys(("mean", "low", "high"))

    def difference(totals: np.ndarray) -> np.ndarray:
        rates = totals[..., 1:] / np.maximum(totals[..., :1], 1)
        f1 = _harmonic(rates[..., 0, :], rates[..., 1, :])
        return f1[..., 0] - f1[..., 1]

    drawn = np.random.default_rng(seed).multinomial(len(index), [1 / len(index)] * len(index), n_resamples)
    low, high = np.percentile(difference(np.einsum("rp,pck->rck", drawn, counts)), [2.5, 97.5])
    return {"mean": float(difference(counts.sum(axis=0))), "low": float(low), "high": float(high)}


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


def fit_position_baseline(truth: Sequence[int | None], n_steps: Sequence[int]) -> PositionBaseline:
    """Guess the first error from the number of steps alone, as well as dev solutions allow.

    For solutions of each length it names the most frequent position of a first error, or none, so that no other such
    table has a better F1. A reward model that does not beat this has read nothing but positions.
    """
    position_of: dict[int, int] = {}
    # Correct solutions passed -> the most first errors hit along with them, and the lengths accused for it.
    reached: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for length in sorted(set(n_steps)):
        here = [t for t, n in zip(truth, n_steps, strict=True) if n == length]
        errors = [t for t in here if t is not None]
        passed = len(here) - len(errors)
        grown = {count + passed: state for count, state in reached.items()}
        if errors:
            position_of[length] = min(set(errors), key=lambda p: (-errors.count(p), p))
            found = errors.count(position_of[length])
            for count, (hits, accused) in reached.items():
                if count not in grown or hits + found > grown[count][0]:
                    grown[count] = (hits + found, (*accused, length))
        reached = grown
    n_error = sum(t is not None for t in truth)
    n_correct = len(truth) - n_error
    _, _, accused = max(
        (float(_harmonic(hits / max(n_error, 1), count / max(n_correct, 1))), hits + count, accused)
        for count, (hits, accused) in reached.items()
    )
    return {length: position_of[length] if length in accused else None for length in sorted(set(n_steps))}


def position_first_error(baseline: PositionBaseline, n_steps: int) -> int | None:
    """The baseline's guess; a length it never saw is treated as the nearest one that it saw."""
    if not baseline or not n_steps:
        return None
    position = baseline[min(baseline, key=lambda length: (abs(length - n_steps), length))]
    return None if position is None else min(position, n_steps - 1)


def first_error_report(
    dev_scores: Sequence[Sequence[float | None]],
    dev_truth: Sequence[int | None],
    test_scores: Sequence[Sequence[float | None]],
    test_truth: Sequence[int | None],
) -> dict[str, Any]:
    """The first-error part of `prm` in metrics.json: threshold and baseline chosen on dev, everything else on test.

    Returns:
      {"first_error_f1", "error_accuracy", "correct_accuracy", "n_error", "n_correct", "threshold", "f1_at_half",
      "position_only_f1", "threshold_sweep": [...]}
    """
    threshold = choose_threshold(dev_scores, dev_truth)
    metrics = first_error_metrics([first_error(steps, threshold) for steps in test_scores], test_truth)
    at_half = first_error_metrics([first_error(steps, 0.5) for steps in test_scores], test_truth)
    baseline = fit_position_baseline(dev_truth, [len(steps) for steps in dev_scores])
    guesses = [position_first_error(baseline, len(steps)) for steps in test_scores]
    return {
        "first_error_f1": metrics.pop("f1"),
        **metrics,
        "threshold": threshold,
        "f1_at_half": at_half["f1"],
        "position_only_f1": first_error_metrics(guesses, test_truth)["f1"],
        "threshold_sweep": threshold_sweep(test_scores, test_truth),
    }


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


def kappa(ours: Sequence[bool | None], theirs: Sequence[bool | None]) -> float | None:
    """Cohen's kappa over the steps that both have labelled: agreement beyond that of two judges who label at these
    rates by chance; None where there is no such step, or chance alone would agree always."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    if not pairs:
        return None
    a, b = np.array(pairs, dtype=np.float64).T
    by_chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return ratio_or_none(float((a == b).mean() - by_chance), float(1 - by_chance))


def _harmonic(a, b):
    """2ab / (a + b), 0 where both are 0; floats or arrays."""
    total = np.asarray(a) + np.asarray(b)
    return 2.0 * np.asarray(a) * b / np.where(total > 0, total, 1.0)


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
