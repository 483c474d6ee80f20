"""A judge on ProcessBench (arXiv:2412.06559): its first errors against the annotators', beside trivial baselines."""

from collections.abc import Sequence
from typing import Any

from spare_jax.evaluation.missing import headlines
from spare_jax.evaluation.process_errors import first_error, said_first_error, scores_of
from spare_jax.evaluation.step_scores import Part, baseline_guesses, choose_on, measure, measure_scores
from spare_jax.records import Judgement, LabelledSolution

DEV_ROWS = 100


def is_dev(row: int, rows: int) -> bool:
    """Whether a row, counted from 0, belongs to the dev part: every k-th, so that it has about 100; none of fewer than
    200 rows."""
    return rows >= 2 * DEV_ROWS and row % (rows // DEV_ROWS) == 0


def process_bench_metrics(
    human: Sequence[LabelledSolution], judgements: Sequence[Judgement], right: Sequence[bool | None], seed: int
) -> dict[str, Any]:
    """First-error metrics of a judge and of the trivial baselines.

    The dev rows serve to choose a threshold, for a judge that gives scores and no labels, and to fit the baselines of
    position and length; all others are test rows. Rows with the same question count as one problem. A row whose first
    error the judge leaves open (process_errors.py) is in none of its figures, and is counted as missing.

    Args:
      human: the rows with the annotators' labels, [row].
      judgements: the judge's, [row].
      right: whether the final answer is the accepted one, [row]; None where that is undecided or no answer is known.
      seed: of the bootstrap.

    Returns:
      {"threshold", "threshold_chosen_on" (both None where the judge gives labels), "dev", "test", "headline":
      {"test.judge.f1"}}; dev and test are as of step_scores.measure, with those of measure_scores where the judge gives
      scores. And "reasons", where the headline is refused (evaluation/missing.py).
    """
    rows = range(len(human))
    chosen = {
        "dev": [i for i in rows if is_dev(i, len(human))],
        "test": [i for i in rows if not is_dev(i, len(human))],
    }
    parts = {
        name: Part(
            [human[i].problem.question for i in indices],
            [human[i].labels for i in indices],
            [[len(step) for step in human[i].solution.steps] for i in indices],
            [right[i] for i in indices],
        )
        for name, indices in chosen.items()
    }
    scores = {
        # A judgement of the final answer alone has no steps.
        name: [scores_of(judgements[i]) or [None] * len(human[i].solution.steps) for i in indices]
        for name, indices in chosen.items()
    }
    only_scores = all(step.label is None for judgement in judgements for step in judgement.steps)
    has_scores = any(step.score is not None for judgement in judgements for step in judgement.steps)
    threshold, chosen_on = choose_on(parts["dev"], "dev", scores["dev"]) if only_scores and has_scores else (None, None)
    result: dict[str, Any] = {"threshold": threshold, "threshold_chosen_on": chosen_on}
    for name, indices in chosen.items():
        predicted = [
            said_first_error(judgements[i], len(human[i].solution.steps))
            if threshold is None
            else first_error(steps, threshold)
            for i, steps in zip(indices, scores[name], strict=True)
        ]
        result[name] = measure(predicted, parts[name], baseline_guesses(parts["dev"], parts[name]), seed)
        if has_scores:
            result[name] |= measure_scores(scores[name], parts[name])
    judge = result["test"]["judge"]
    n = judge["n_error"] + judge["n_correct"]
    result["headline"], reasons = headlines({"test.judge.f1": (judge["f1"], n, judge["missing"])})
    return result | ({"reasons": reasons} if reasons else {})
