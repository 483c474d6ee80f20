"""The page of a file of judged solutions: counts, and the judge's labels step by step."""

from collections.abc import Mapping, Sequence
from typing import Any

from spare_jax.evaluation.missing import tally, why_not_judged
from spare_jax.evaluation.statistics import mean_or_none
from spare_jax.records import LabelledSolution
from spare_jax.report.document import document
from spare_jax.report.markup import count, percent, table, text
from spare_jax.report.steps import example_of, judged_step, solution_view

SHOWN = 60  # solutions; those with an error come first


def render(
    solutions: Sequence[LabelledSolution], judge: str, labels: Sequence[Sequence[bool | None]], source: str
) -> str:
    """The page as HTML text, to be written as UTF-8.

    Args:
      solutions: with the judge's judgements.
      judge, source: the judge's name, and what file the solutions are from.
      labels: one label per step of each solution, as they are written for training.
    """
    missing = tally(why_not_judged(item.judgement) for item in solutions)
    judged = [item.judgement for item in solutions if not item.judgement.failure]
    known = [label for several in labels for label in several if label is not None]
    wrong = sum(False in several for several in labels)
    unlabelled = sum(
        None in step_labels and not item.judgement.failure for item, step_labels in zip(solutions, labels, strict=True)
    )
    tokens = mean_or_none([judgement.prompt_tokens + judgement.generated_tokens for judgement in judged])
    rows = [
        ("", ("solutions", count(len(solutions)))),
        ("", ("steps", count(sum(len(item.solution.steps) for item in solutions)))),
        ("", ("steps labelled correct", text(percent(sum(known) / len(known))) if known else "&ndash;")),
        ("", ("solutions with a step labelled incorrect", count(wrong))),
        ("", ("solutions that were not judged", count(sum(missing.values())))),
        *(("", (f"&ensp;{text(why)}", count(n))) for why, n in missing.items()),
        ("", ("other solutions with a step without a label", count(unlabelled))),
        ("", ("tokens per judged solution, prompt and answer", "&ndash;" if tokens is None else count(tokens))),
    ]
    pairs = sorted(zip(solutions, labels, strict=True), key=lambda pair: False not in pair[1])[:SHOWN]
    views = "".join(
        solution_view(_example(item, several, judge), is_open=i < 2) for i, (item, several) in enumerate(pairs)
    )
    more = f"<p>{count(len(solutions) - SHOWN)} more are in the files.</p>" if len(solutions) > SHOWN else ""
    title = f"Steps as {text(judge)} labels them"
    lede = (
        f"{count(len(solutions))} solutions of {text(source)}. c marks sentences of the problem, r steps of the "
        "reference, s steps of the solution; the bar at the left is the label."
    )
    return document(
        title,
        f'<header><p class="kicker">spare_jax</p><h1>{title}</h1><p class="lede">{lede}</p></header><main>'
        f'<section id="counts"><header><h2>In numbers</h2></header><div class="body">'
        f"{table(('', ''), rows, 'What was judged')}</div></section>"
        f'<section id="steps"><header><h2>Step by step</h2><p>Solutions with an error come first.</p></header>'
        f'<div class="body">{views}{more}</div></section></main>',
    )


def _example(item: LabelledSolution, labels: Sequence[bool | None], judge: str) -> Mapping[str, Any]:
    return example_of(
        item,
        judge,
        [
            judged_step(step, judged, label=label)
            for step, label, judged in zip(item.solution.steps, labels, item.judgement.steps, strict=True)
        ],
        item.judgement.failure,
    )
