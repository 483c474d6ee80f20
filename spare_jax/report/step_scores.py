"""Sections on a judge of steps: first errors beside trivial baselines, errors behind right answers, calibration.

They show what evaluation/step_scores.py measures: `prm` of the main job's metrics.json, `test` of ProcessBench's.
"""

from collections.abc import Mapping, Sequence

from spare_jax.report.figures import Line, interval_text, line_chart, reliability_chart
from spare_jax.report.layout import pair
from spare_jax.report.markup import count, decimal, is_number, table, text
from spare_jax.report.numbers import Numbers

_BASELINES = {
    "position_only": "step position alone",
    "length_only": "step length alone",
    "final_answer_only": "final answer alone",
    "always_first": "always the first step",
    "never_wrong": "never an error",
}
_KEYS = ("error_accuracy", "correct_accuracy")


def first_error(
    numbers: Numbers,
    hidden: Sequence[tuple[str, str, str]],
    path: str = "prm",
    chosen_at: str = "prm.threshold",
    judge: str = "PRM",
) -> tuple[str, str]:
    """The section's introduction, and the section.

    Args:
      hidden: (class, label, metrics path) of the judges whose verdicts on right answers with a wrong step are shown.
      path: metrics path of the measured part.
      chosen_at: metrics path of the threshold; that path with "_chosen_on" says where it was chosen.
      judge: the judge's name.
    """
    aside = (
        "The first error is the first step that is called wrong or, by a judge that only scores, the first whose score "
        "falls below a threshold. F1 is the harmonic mean of the "
        "exact hits on wrong solutions and the passes of right ones. Baselines read no step; those of place and length "
        "are as good as the solutions allow on which the threshold was chosen."
    )
    if not numbers.has_any(path):
        return aside, numbers.why_absent()
    threshold, part = numbers.number(chosen_at), numbers.get(f"{chosen_at}_chosen_on.part")
    known = numbers.number(f"{chosen_at}_chosen_on.f1") is not None
    chosen = f"chosen on {part}" if isinstance(part, str) and known else "not chosen"
    name = judge if threshold is None else f"{judge} at {decimal(threshold, 3)}, {chosen}"
    rows = [("prm", (text(name) + numbers.missing(f"{path}.judge"), *_cells(numbers, f"{path}.judge")))]
    if numbers.get(f"{path}.at_half") is not None:
        label = text(f"{judge}, scores at 0.5") + numbers.missing(f"{path}.at_half")
        rows.append(("", (label, *_cells(numbers, f"{path}.at_half"))))
    for key, label in _BASELINES.items():
        if numbers.get(f"{path}.{key}") is not None:
            rows.append(("", (label + numbers.missing(f"{path}.{key}"), *_cells(numbers, f"{path}.{key}"))))
    shown = table(
        ("", "F1", "error found", "right passed"), rows, "First error, per solution, with 95 % intervals of F1"
    )
    gains = []
    for key in ("position_only", "length_only"):
        mean, low, high = (numbers.number(f"{path}.judge_minus.{key}.{part}") for part in ("mean", "low", "high"))
        if mean is not None:
            gains.append(f"{interval_text(mean, low, high)} points of F1 against {_BASELINES[key]}")
    if gains:
        shown += f"<p>{'; '.join(gains)}.</p>"
    shown += _hidden(numbers, hidden)
    sweep = numbers.get(f"{path}.threshold_sweep")
    sweep = [row for row in sweep if isinstance(row, Mapping)] if isinstance(sweep, list) else []
    lines = [
        Line(label, kind, tuple((row.get("threshold"), row.get(key)) for row in sweep))
        for label, kind, key in (
            ("error found", "error-found", "error_accuracy"),
            ("right passed", "right-passed", "correct_accuracy"),
            ("F1", "prm", "f1"),
        )
    ]
    baseline = numbers.number(f"{path}.position_only.f1")
    chart = line_chart(
        lines,
        title="First-error F1 over the threshold",
        x_label="threshold",
        y_label="solutions, %",
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        x_mark=None if threshold is None else (threshold, chosen),
        y_mark=None if baseline is None else (baseline, "position only"),
        dots=False,
    )
    caption = "F1 over the threshold, where it is measured"
    return aside, shown + pair((chart, caption, f"{path}.threshold_sweep"), numbers=numbers)


def _cells(numbers: Numbers, path: str) -> tuple[str, ...]:
    return numbers.show(f"{path}.f1") + numbers.range_of(path), *(numbers.show(f"{path}.{key}") for key in _KEYS)


def _hidden(numbers: Numbers, hidden: Sequence[tuple[str, str, str]]) -> str:
    rows = []
    for kind, label, path in hidden:
        if numbers.get(path) is not None:
            rates = (numbers.show(f"{path}.{key}") for key in ("share", "found", "exact"))
            rows.append((kind, (text(label) + numbers.missing(path), numbers.show(f"{path}.n", count), *rates)))
    head = ("", "solutions", "of right answers", "error found", "at the right step")
    return table(head, rows, "Right answer, wrong process: an error that no outcome shows") if rows else ""


def calibration(numbers: Numbers, path: str = "prm.calibration", judge: str = "PRM") -> tuple[str, str]:
    """The section's introduction, and the section, from the figures at `path` and the judge's name."""
    aside = "Of the steps with a given score, how many are right? A calibrated model lies on the diagonal."
    if not numbers.has_any(path):
        return aside, numbers.why_absent()
    rows = numbers.get(f"{path}.bins")
    keys = ("score", "right", "n")
    bins = [
        (float(row["score"]), float(row["right"]), int(row["n"]))
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, Mapping) and all(is_number(row.get(key)) for key in keys) and row["n"] > 0
    ]
    line = (
        f"<p>Expected calibration error {numbers.show(f'{path}.ece', lambda v: decimal(v, 3))}, Brier score "
        f"{numbers.show(f'{path}.brier', lambda v: decimal(v, 3))}, over "
        f"{numbers.show(f'{path}.n', count)} steps.</p>"
    )
    name = text(judge)
    chart = reliability_chart(bins, title=f"Share of right steps over the score, {judge}")
    return aside, pair(
        (chart, f"Right steps over the score of {name} <span>(area: steps)</span>", f"{path}.bins"),
        beside=line,
        numbers=numbers,
    )
