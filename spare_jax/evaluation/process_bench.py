"""A judge on ProcessBench (arXiv:2412.06559): against the people's first errors, beside what needs no judge at all."""

from collections.abc import Sequence
from typing import Any

from spare_jax.evaluation.process_errors import first_error
from spare_jax.evaluation.step_scores import Part, baseline_guesses, choose_on, measure, measure_scores
from spare_jax.records import Judgement, LabelledSolution

DEV_ROWS = 100


def is_dev(row: int, rows: int) -> bool:
    """Whether a row (from 0) belongs to the dev part: every k-th one, so that there are about 100; none of few rows."""
    return rows >= 2 * DEV_ROWS and row % (rows // DEV_ROWS) == 0


def process_bench_metrics(
    human: Sequence[LabelledSolution], judgements: Sequence[Judgement], right: Sequence[bool], seed: int
) -> dict[str, Any]:
    """First-error metrics of a judge and of the trivial baselines.

    Thresholds (of judges that only score) and the baselines of position and length are chosen on the dev rows alone;
    `test` is all the others, `dev` is there to be compared with it. Rows with the same question are one problem.

    Args:
      human: the rows with the people's labels, [row].
      judgements: the judge's, [row].
      right: whether the final answer is the accepted one, [row]; False where no answer is known.
      seed: of the bootstrap.

    Returns:
      {"threshold", "threshold_chosen_on" (both None where the judge labels), "dev": {...}, "test": {...}}, the parts as
      step_scores.measure makes them and, where the judge scores, step_scores.measure_scores.
    """
    rows = range(len(human))
    chosen = {
        "dev": [i for i in rows if is_dev(i, len(human))],
        "test": [i for i in rows if not is_dev(i, len(human))],
    }
    parts = {
        name: Part(
            [human[i].problem.question for i in of],
            [human[i].labels for i in of],
            [[len(step) for step in human[i].solution.steps] for i in of],
            [right[i] for i in of],
        )
        for name, of in chosen.items()
    }
    scores = {
        # A judge of whole answers has no judged steps.
        name: [
            [step.score for step in judgements[i].steps] or [None] * len(human[i].solution.steps) for i in of
        ]
        for name, of in chosen.items()
    }  # fmt: skip
    only_scores = all(step.label is None for judgement in judgements for step in judgement.steps)
    has_scores = any(step.score is not None for judgement in judgements for step in judgement.steps)
    threshold, chosen_on = choose_on(parts["dev"], "dev", scores["dev"]) if only_scores and has_scores else (None, None)
    found: dict[str, Any] = {"threshold": threshold, "threshold_chosen_on": chosen_on}
    for name, of in chosen.items():
        said = [
            judgements[i].first_error if threshold is None else first_error(steps, threshold)
            for i, steps in zip(of, scores[name], strict=True)
        ]
        found[name] = measure(said, parts[name], baseline_guesses(parts["dev"], parts[name]), seed)
        if has_scores:
            found[name] |= measure_scores(scores[name], parts[name])
    return found
