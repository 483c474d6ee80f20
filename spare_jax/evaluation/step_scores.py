"""The figures of a judge of steps, the main job's PRM or any judge on ProcessBench: first errors beside trivial
baselines, errors behind right answers, thresholds, calibration. Thresholds and baselines are chosen on a dev part."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from spare_jax.evaluation.baselines import (
    fit_length_baseline,
    fit_position_baseline,
    length_first_error,
    position_first_error,
)
from spare_jax.evaluation.calibration import calibration
from spare_jax.evaluation.missing import NO_TRUTH, UNDECIDED, Missing
from spare_jax.evaluation.process_errors import (
    FirstError,
    StepScores,
    choose_threshold,
    first_error,
    first_error_difference,
    first_error_interval,
    first_error_metrics,
    first_false,
    right_answer_wrong_process,
    threshold_sweep,
)

BASELINES = ("never_wrong", "always_first", "position_only", "length_only", "final_answer_only")
_FITTED = ("position_only", "length_only")


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the data (dev, test), one entry per solution in each field.

    `problems`: the problem, which the bootstrap resamples; `labels`: the truth of each step, None where unknown;
    `lengths`: of each step, in characters; `right`: whether the final answer is the accepted one, None where undecided.
    """

    problems: Sequence[str]
    labels: Sequence[Sequence[bool | None]]
    lengths: Sequence[Sequence[int]]
    right: Sequence[bool | None]

    @property
    def first_errors(self) -> list[FirstError]:
        """The true first error of each solution."""
        return [first_false(steps, NO_TRUTH) for steps in self.labels]


def choose_on(part: Part, name: str, scores: Sequence[StepScores]) -> tuple[float, dict[str, Any] | None]:
    """The threshold with the best F1 on a part, and how it was chosen: {"part": `name`, "f1": the F1 there, "n": the
    solutions in that figure, "missing": those that are not}. For an empty part 0.5 and None."""
    truth = part.first_errors
    threshold = choose_threshold(scores, truth)
    if not truth:
        return threshold, None
    measured = first_error_metrics([first_error(steps, threshold) for steps in scores], truth)
    n = measured["n_error"] + measured["n_correct"]
    return threshold, {"part": name, "n": n, "missing": measured["missing"], "f1": measured["f1"]}


def baseline_guesses(dev: Part, part: Part) -> dict[str, list[FirstError]]:
    """The first errors of `part` as each of BASELINES guesses them; position and length are fitted on `dev`."""
    n_steps = [len(steps) for steps in part.lengths]
    position = fit_position_baseline(dev.first_errors, [len(steps) for steps in dev.lengths])
    length = fit_length_baseline(dev.first_errors, dev.lengths)
    return {
        "never_wrong": [None for _ in n_steps],
        "always_first": [0 for _ in n_steps],
        "position_only": [position_first_error(position, n) for n in n_steps],
        "length_only": [length_first_error(length, steps) for steps in part.lengths],
        "final_answer_only": [
            Missing(UNDECIDED) if right is None else None if right else max(0, n - 1)
            for right, n in zip(part.right, n_steps, strict=True)
        ],
    }  # fmt: skip


def measure(
    predicted: Sequence[FirstError], part: Part, guesses: Mapping[str, Sequence[FirstError]], seed: int
) -> dict:
    """First-error metrics of a judge on a part, beside those of the guesses of baselines.

    Args:
      predicted: the judge's first errors; where one is missing the solution is in none of the judge's figures.
      guesses: as of `baseline_guesses`.
      seed: of the bootstrap.

    Returns:
      {"n": solutions of the part, "judge": first_error_metrics with the interval "low" and "high" of its f1, each
      baseline: first_error_metrics, "judge_minus": {"position_only", "length_only": first_error_difference},
      "right_answer_wrong_process"}
    """
    truth = part.first_errors
    return {
        "n": len(truth),
        "judge": first_error_metrics(predicted, truth) | first_error_interval(predicted, truth, part.problems, seed),
        **{name: first_error_metrics(guess, truth) for name, guess in guesses.items()},
        "judge_minus": {
            name: first_error_difference(predicted, guesses[name], truth, part.problems, seed) for name in _FITTED
        },
        "right_answer_wrong_process": right_answer_wrong_process(predicted, truth, part.right),
    }


def measure_scores(scores: Sequence[StepScores], part: Part) -> dict[str, Any]:
    """Figures of a judge's scores beyond one threshold, not to choose a threshold by.

    Returns:
      {"at_half": first_error_metrics at threshold 0.5 (SPARE, arXiv 2506.15498), "threshold_sweep", "calibration" over
      the steps with a score and a known truth}
    """
    truth = part.first_errors
    known = [
        (score, label)
        for steps, labels in zip(scores, part.labels, strict=True)
        if not isinstance(steps, Missing)
        for score, label in zip(steps, labels, strict=True)
        if score is not None and label is not None
    ]
    return {
        "at_half": first_error_metrics([first_error(steps, 0.5) for steps in scores], truth),
        "threshold_sweep": threshold_sweep(scores, truth),
        "calibration": calibration([score for score, _ in known], [label for _, label in known]),
    }
