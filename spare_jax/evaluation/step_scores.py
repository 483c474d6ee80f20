"""What a judge of steps is worth, for the main job's PRM and for any judge on ProcessBench: first errors beside what
needs no judge, the errors behind right answers, thresholds, calibration. All that is chosen is chosen on a dev part."""

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
    """The solutions of a part of the data, one entry each.

    `problems` they belong to, which the bootstrap resamples; `labels` of the steps, the truth (None where unknown);
    `lengths` of the steps in characters; `right`: is the final answer the accepted one (None where undecided)?
    """

    problems: Sequence[str] = ()
    labels: Sequence[Sequence[bool | None]] = ()
    lengths: Sequence[Sequence[int]] = ()
    right: Sequence[bool | None] = ()

    @property
    def first_errors(self) -> list[FirstError]:
        """Index of the first wrong step of each solution."""
        return [first_false(steps, NO_TRUTH) for steps in self.labels]


def choose_on(part: Part, name: str, scores: Sequence[StepScores]) -> tuple[float, dict[str, Any] | None]:
    """The threshold for these scores, and on what it was chosen: {"part": `name`, "n", "missing", "f1"}, with the F1
    there and the solutions that it is over. Of an empty part 0.5 and None."""
    truth = part.first_errors
    threshold = choose_threshold(scores, truth)
    if not truth:
        return threshold, None
    found = first_error_metrics([first_error(steps, threshold) for steps in scores], truth)
    n = found["n_error"] + found["n_correct"]
    return threshold, {"part": name, "n": n, "missing": found["missing"], "f1": found["f1"]}


def baseline_guesses(dev: Part, part: Part) -> dict[str, list[FirstError]]:
    """The first errors of `part` as the BASELINES guess them; those by position and length are fitted on `dev`."""
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


def measure(said: Sequence[FirstError], part: Part, guesses: Mapping[str, Sequence[FirstError]], seed: int) -> dict:
    """A judge's first errors on a part, beside those of `baseline_guesses`. Solutions that the judge misses are in none
    of its figures and no difference; the baselines, which ask nobody, are over all.

    Returns:
      {"n" (solutions of the part), "judge": first_error_metrics with "low" and "high" (the 95 % bootstrap interval of
      f1 over problems), each baseline: first_error_metrics, "judge_minus": {"position_only", "length_only":
      first_error_difference}, "right_answer_wrong_process"}
    """
    truth = part.first_errors
    return {
        "n": len(truth),
        "judge": first_error_metrics(said, truth) | first_error_interval(said, truth, part.problems, seed),
        **{name: first_error_metrics(guess, truth) for name, guess in guesses.items()},
        "judge_minus": {
            name: first_error_difference(said, guesses[name], truth, part.problems, seed) for name in _FITTED
        },
        "right_answer_wrong_process": right_answer_wrong_process(said, truth, part.right),
    }


def measure_scores(scores: Sequence[StepScores], part: Part) -> dict[str, Any]:
    """What scores tell beyond the first errors at one threshold; to be looked at, never to choose from.

    Returns:
      {"at_half": first_error_metrics at 0.5 (the threshold of arXiv 2506.15498), "threshold_sweep", "calibration" over
      the steps that have a score and whose truth is known}
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
