"""A judge on ProcessBench (arXiv:2412.06559): against the people's first errors, beside what needs no judge at all."""

from collections.abc import Sequence
from typing import Any

from spare_jax.evaluation.missing import headlines
from spare_jax.evaluation.process_errors import first_error, said_first_error, scores_of
from spare_jax.evaluation.step_scores import Part, baseline_guesses, choose_on, measure, measure_scores
from spare_jax.records import Judgement, LabelledSolution

DEV_ROWS = 100


def is_dev(row: int, rows: int) -> bool:
    """Whether a row (from 0) belongs to the dev part: every k-th one, so that there are about 100; none of few rows."""
    return rows >= 2 * DEV_ROWS and row % (rows // DEV_ROWS) == 0


def process_bench_metrics(
    human: Sequence[LabelledSolution], judgements: Sequence[Judgement], right: Sequence[bool | None], seed: int
) -> dict[str, Any]:
    """First-error metrics of a judge and of the trivial baselines.

    Thresholds (of judges that only score) and the baselines of position and length are chosen on the dev rows alone;
    `test` is all the others, `dev` is there to be compared with it. Rows with the same question are one problem.

    A row is judged where the judge's labels, or scores at the threshold, are known up to the first error that it finds,
    or are known of all steps. The others are in none of its figures, and are counted.

    Args:
      human: the rows with the people's labels, [row].
      judgements: the judge's, [row].
      right: whether the final answer is the accepted one, [row]; None where that is undecided or no answer is known.
      seed: of the bootstrap.

    Returns:
      {"threshold", "threshold_chosen_on" (both None where the judge labels), "dev": {...}, "test": {...}, "headline":
      {"test.judge.f1"}}, the parts as step_scores.measure makes them and, where the judge scores,
      step_scores.measure_scores; and "reasons" where the headline is refused (evaluation/missing.py).
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
        name: [scores_of(judgements[i]) or [None] * len(human[i].solution.steps) for i in of]
        for name, of in chosen.items()
    }
    only_scores = all(step.label is None for judgement in judgements for step in judgement.steps)
    has_scores = any(step.score is not None for judgement in judgements for step in judgement.steps)
    threshold, chosen_on = choose_on(parts["dev"], "dev", scores["dev"]) if only_scores and has_scores else (None, None)
    found: dict[str, Any] = {"threshold": threshold, "threshold_chosen_on": chosen_on}
    for name, of in chosen.items():
        said = [
            said_first_error(judgements[i], len(human[i].solution.steps))
            if threshold is None
            else first_error(steps, threshold)
            for i, steps in zip(of, scores[name], strict=True)
        ]
        found[name] = measure(said, parts[name], baseline_guesses(parts["dev"], parts[name]), seed)
        if has_scores:
            found[name] |= measure_scores(scores[name], parts[name])
    judge = found["test"]["judge"]
    n = judge["n_error"] + judge["n_correct"]
    found["headline"], reasons = headlines({"test.judge.f1": (judge["f1"], n, judge["missing"])})
    return found | ({"reasons": reasons} if reasons else {})
