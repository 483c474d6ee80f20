"""The page of a judge on ProcessBench: its first errors beside the annotators' and beside trivial baselines."""

from collections.abc import Mapping, Sequence
from typing import Any

from spare_jax.records import Judgement, LabelledSolution
from spare_jax.report.document import document
from spare_jax.report.markup import count, text
from spare_jax.report.numbers import Numbers
from spare_jax.report.step_scores import calibration, first_error
from spare_jax.report.steps import example_of, solution_view

SHOWN = 20  # solutions; those whose first error the judge misses come first


def render(
    metrics: Mapping[str, Any],
    judge: str,
    rows: Sequence[LabelledSolution],
    judgements: Sequence[Judgement],
    labels: Sequence[Sequence[bool | None]],
    source: str,
) -> str:
    """The page as HTML text, to be written as UTF-8.

    Args:
      metrics: as `evaluation.process_bench.process_bench_metrics` makes them.
      judge, source: the judge's name, and what file the rows are from.
      rows: with the annotators' labels.
      judgements, labels: the judge's, one of each per row; a label per step, at the threshold where it only scores.
    """
    numbers = Numbers(metrics)
    hidden = [("prm", judge, "test.right_answer_wrong_process")]
    sections = [
        ("first-error", "Finding the first error", first_error(numbers, hidden, "test", "threshold", judge)),
        ("calibration", "Calibration", calibration(numbers, "test.calibration", judge)),
        ("steps", "Step by step", _steps(judge, rows, judgements, labels)),
    ]
    body = "".join(
        f'<section id="{key}"><header><h2>{title}</h2><p>{aside}</p></header>'
        f'<div class="body">{content}</div></section>'
        for key, title, (aside, content) in sections
    )
    n = {part: numbers.number(f"{part}.n") for part in ("dev", "test")}
    lede = f"{count(n['test'] or 0)} rows of {text(source)} are measured. "
    lede += (
        f"{count(n['dev'])} others, every k-th row, are the part dev, on which thresholds and baselines were chosen."
        if n["dev"]
        else "They are too few for a part on which a threshold or a baseline could be chosen."
    )
    f1 = f"First\u2011error F1 {numbers.quoted('test.judge.f1')}{numbers.missing('test.judge')}"
    title = f"{text(judge)} on ProcessBench"
    return document(
        title,
        f'<header><p class="kicker">spare_jax</p><h1>{title}</h1><p class="lede">{lede}</p>'
        f"<p>{f1}</p>{numbers.why_absent()}</header>"
        f"<main>{body}</main>",
    )


def _steps(
    judge: str,
    rows: Sequence[LabelledSolution],
    judgements: Sequence[Judgement],
    labels: Sequence[Sequence[bool | None]],
) -> tuple[str, str]:
    aside = (
        "Solutions in which the judge's first error is not the people's come first, those that it did not judge last. "
        "The bar at the left is the people's label; they gave none behind the first error."
    )
    ordered = sorted(
        zip(rows, judgements, labels, strict=True),
        key=lambda row: (
            not any(label is not None for label in row[2]),
            _first_wrong(row[0].labels) == _first_wrong(row[2]),
        ),
    )[:SHOWN]
    views = [solution_view(_example(judge, *row), is_open=i == 0) for i, row in enumerate(ordered)]
    return aside, "".join(views) or "<p>The file holds no solution.</p>"


def _first_wrong(labels: Sequence[bool | None]) -> int | None:
    return next((i for i, label in enumerate(labels) if label is False), None)


def _example(
    judge: str, item: LabelledSolution, judgement: Judgement, labels: Sequence[bool | None]
) -> Mapping[str, Any]:
    nothing = [None] * len(item.solution.steps)
    return example_of(
        item,
        judge,
        [
            {
                "text": step,
                "truth": real,
                "label": label,
                "score": judged.score if judged else None,
                "explanation": judged.explanation if judged else "",
            }
            for step, real, label, judged in zip(
                item.solution.steps, item.labels, labels or nothing, judgement.steps or nothing, strict=True
            )
        ],
        judgement.failure,
    )
