"""The report of the main job: metrics, costs and a few judged solutions as one self-contained HTML page.

The page loads nothing and runs nothing. Any text or figure may be missing: a figure that is null or absent shows as a
dash, and its section says why.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from spare_jax.report.document import document
from spare_jax.report.figures import Bar, Interval, bar_table, interval_table, interval_text
from spare_jax.report.markup import count, decimal, is_number, percent, points, seconds, table, text
from spare_jax.report.numbers import Numbers
from spare_jax.report.scaling import scaling
from spare_jax.report.step_scores import calibration, first_error
from spare_jax.report.steps import solution_view
from spare_jax.selection.aggregate import AGGREGATIONS

_RANKERS = {
    "prm": "PRM",
    "orm": "ORM",
    "likelihood": "likelihood",
    "prm_at_init": "PRM before training",
    "position_only": "step position alone",
    "length_only": "number of steps alone",
}
# At the ends of lines, where there is little room.
_BRIEFLY = {"prm_at_init": "PRM untrained", "position_only": "position only", "length_only": "length only"}
# The judges whose verdicts on right answers with a wrong step are shown: (class, label, metrics path).
_HIDDEN = (
    ("prm", "PRM", "prm.right_answer_wrong_process"),
    ("", "SPARE", "judges.spare.right_answer_wrong_process"),
)
_JUDGES = {
    "spare": "SPARE, in distribution",
    "spare_out_of_distribution": "SPARE, out of distribution",
    "spare_no_reference": "control: no reference",
    "spare_wrong_reference": "control: wrong reference",
}


def render(metrics: Mapping[str, Any], examples: Sequence[Mapping[str, Any]], meta: Mapping[str, Any]) -> str:
    """The report as HTML text, to be written as UTF-8.

    Args:
      metrics: the content of metrics.json. Read from it (rates are fractions; anything may be null or missing):
        n_problems, n_samples, seed; `missing` beside any figures, {why: rows that these are not over};
        policy.pass_at_1, policy.out_of_distribution.pass_at_1;
        selection as `evaluation.accuracy.selection_metrics` makes it, selection.out_of_distribution likewise;
        curves as `evaluation.curves.accuracy_curves` makes it;
        judges.{spare,spare_out_of_distribution,spare_no_reference,spare_wrong_reference} as
        `evaluation.process_errors.judge_metrics` makes it, with right_answer_wrong_process, explanation_agreement,
        reference_right and wrong_reference_drop;
        prm as `choose_on`, `measure` and `measure_scores` of `evaluation.step_scores` make it; prm.out_of_distribution
        with the same keys;
        reasons: why a figure is null, by its dotted path ("selection.orm.weighted.last"), and under "headline.<path>"
        why one is not quoted at the head of the page.
      examples: solutions for the step view, each with question, context, reference (lists of sentences), answer,
        gold_answer, outcome (bool), score and steps: a list of {text, truth, label (bools), score, explanation,
        context, steps, reference (lists of ids), errors (list of names)}.
      meta: task, generated (are the problems generated and the models embedded?), trained (False where an existing PRM
        was given), device, models ({role: path}), counts ({what is counted: number}) and runs: rows of {stage, seconds,
        prompt_tokens, generated_tokens}, of which those of one stage are added up.
    """
    numbers = Numbers(metrics)
    sections = [
        ("selection", "Choosing among samples", _selection(numbers)),
        ("scaling", "More samples, more tokens", scaling(numbers, _RANKERS | _BRIEFLY)),
        ("judge", "The judge against the truth", _judge(numbers)),
        ("first-error", "Finding the first error", first_error(numbers, _HIDDEN)),
        ("calibration", "Calibration", calibration(numbers)),
        ("shift", "Out of distribution", _shift(numbers)),
        ("costs", "What it cost", _costs(numbers, meta)),
        ("steps", "Step by step", _steps(examples)),
        ("notes", "Read with care", _notes(meta)),
    ]
    contents = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in sections)
    body = "".join(
        f'<section id="{key}" aria-labelledby="h-{key}"><header><h2 id="h-{key}">{title}</h2><p>{aside}</p></header>'
        f'<div class="body">{content}</div></section>'
        for key, title, (aside, content) in sections
    )
    title = "A process reward model from single\u2011pass annotation"
    seed = f" &middot; seed {text(metrics['seed'])}" if is_number(metrics.get("seed")) else ""
    return document(
        title,
        f'<header><p class="kicker">spare_jax{seed}</p><h1>{title}</h1>{_headline(numbers, meta)}'
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav></header>'
        f"<main>{body}</main><footer>{_footer(meta)}</footer>",
    )


def _headline(numbers: Numbers, meta: Mapping[str, Any]) -> str:
    models: Any = meta.get("models")
    models = models if isinstance(models, Mapping) else {}
    n_problems, n_samples = numbers.number("n_problems"), numbers.number("n_samples")
    problems = f"{count(n_problems) if n_problems is not None else 'the'} {text(meta.get('task') or '')} test problems"
    samples = f"{count(n_samples)} times" if n_samples is not None else "several times"
    lede = f"The policy{_named(models, 'generator')} answers {problems} {samples} each. "
    if meta.get("trained", True):
        lede += (
            f"A judge{_named(models, 'judge')} has labelled the steps of other solutions, each in a single pass beside "
            f"its reference, and a process reward model{_named(models, 'prm')} was trained on these labels. "
            "Here it weights the vote on the answer."
        )
    else:
        lede += f"A process reward model made earlier{_named(models, 'prm')} weights the vote on the answer."
    gain, low, high = (numbers.number(f"selection.prm_minus_majority.{key}") for key in ("mean", "low", "high"))
    if numbers.is_refused("selection.prm_minus_majority.mean"):
        under = f"against the majority vote: {numbers.dash('headline.selection.prm_minus_majority.mean')}"
    elif gain is None:
        under = f"against the majority vote: {numbers.dash('selection.prm_minus_majority.mean')}"
    else:
        under = f"{points(gain)} points against the majority vote"
        if low is not None and high is not None:
            verdict = "it excludes zero" if low > 0 or high < 0 else "it includes zero, so no difference is shown"
            under += f", 95 % interval {points(low)} to {points(high)}; {verdict}"
    stats = (
        ("", "One sample", numbers.quoted("policy.pass_at_1"), "the policy alone, pass@1"),
        ("", "Majority vote", numbers.quoted("selection.majority"), "the most frequent answer"),
        (' class="ours"', "Vote weighted by the PRM", numbers.quoted("selection.prm.weighted.last"), under),
    )
    tiles = "".join(
        f'<div{kind}><dt>{name}</dt><dd class="value">{shown}</dd><dd class="under">{below}</dd></div>'
        for kind, name, shown, below in stats
    )
    caveat = (
        '<p class="caveat">The problems are generated and the models are embedded toys. The teacher\'s accuracy is a '
        "setting of the experiment, not a finding.</p>"
        if meta.get("generated")
        else ""
    )
    return f'<p class="lede">{lede}</p>{caveat}<dl class="stats">{tiles}</dl>{numbers.why_absent()}'


def _selection(numbers: Numbers) -> tuple[str, str]:
    aside = (
        "Accuracy on the same samples under different ways to choose. Oracle is the share of problems with any right "
        "sample, the bound of every choice. Weighted by the last step's score, as fixed in advance."
    )
    if not numbers.has_any("selection"):
        return aside, numbers.why_absent()
    rankers = {key: label for key, label in _RANKERS.items() if numbers.has_any(f"selection.{key}")}
    rows = [
        ("policy", "one sample", "policy.pass_at_1", "one_sample"),
        ("majority", "majority vote", "selection.majority", "majority"),
        *((key, f"weighted by {rankers[key]}", f"selection.{key}.weighted.last", key) for key in reversed(rankers)),
        ("oracle", "oracle", "selection.oracle", "oracle"),
    ]
    bars = [
        Bar(
            label,
            kind,
            numbers.number(path),
            numbers.show(path)
            + numbers.range_of(f"selection.intervals.{key}")
            + numbers.missing(f"selection.intervals.{key}"),
        )
        for kind, label, path, key in rows
    ]
    intervals = []
    for other, label in (("majority", "majority vote"), *((k, v) for k, v in rankers.items() if k != "prm")):
        path = f"selection.prm_minus_{other}"
        mean, low, high = (numbers.number(f"{path}.{key}") for key in ("mean", "low", "high"))
        p = numbers.number(f"{path}.p")
        shown = numbers.dash(f"{path}.mean") if mean is None else interval_text(mean, low, high, p)
        intervals.append(Interval(f"against {label}", mean, low, high, shown))
    table_rows = []
    for rule, words in (("best_of_n", "best of n"), ("weighted", "weighted vote")):
        table_rows.append(("group", (words, *[""] * len(AGGREGATIONS))))
        for key, label in rankers.items():
            cells = [numbers.show(f"selection.{key}.{rule}.{aggregation}") for aggregation in AGGREGATIONS]
            table_rows.append((key, (label, *cells)))
    return aside, (
        bar_table(bars, "Problems answered right, with 95 % intervals")
        + interval_table(
            intervals,
            "What the PRM-weighted vote gains, in points, with paired 95 % intervals and the p of a one-tailed t-test",
        )
        + table(("scores aggregated by", *AGGREGATIONS), table_rows, "Every rule and aggregation")
        + "<p><small>A ranker that gives one score per solution is the same under every aggregation.</small></p>"
        + numbers.why_absent()
    )


def _judge(numbers: Numbers) -> tuple[str, str]:
    aside = (
        "Step labels of the annotator against the truth. Precision and recall are those of the class "
        "&ldquo;incorrect&rdquo;. The controls say whether the reference is read at all."
    )
    if not numbers.has_any("judges"):
        return aside, numbers.why_absent()
    columns = (
        ("step_accuracy", "step accuracy", percent),
        ("error_precision", "error precision", percent),
        ("error_recall", "error recall", percent),
        ("kappa", "kappa", decimal),
        ("parse_failure_rate", "parse failures", percent),
        ("missed_step_rate", "missed steps", percent),
        ("tokens_per_solution", "tokens each", count),
    )
    rows = []
    for judge, label in _JUDGES.items():
        if numbers.has_any(f"judges.{judge}"):
            cells = [numbers.show(f"judges.{judge}.{key}", write) for key, _, write in columns]
            rows.append((judge, (label + numbers.missing(f"judges.{judge}"), *cells)))
    shown = table(("judge", *(name for _, name, _ in columns)), rows, "Quality of the step labels")
    finding, fall = "", numbers.number("judges.spare.wrong_reference_drop")
    if fall is not None:
        verdict = "it judges by the reference" if fall >= 0.1 else "it hardly reads the reference"
        finding = (
            f"<p>Given another problem's reference, the judge's step accuracy on the same solutions changes by "
            f"{points(-fall)} points: {verdict}.</p>"
        )
    for path, words in (
        ("explanation_agreement", "of its labels say what their own explanations (&ldquo;said .., is ..&rdquo;) say."),
        ("reference_right", "of the steps of references, given as solutions too, are right by its word."),
    ):
        if numbers.number(f"judges.spare.{path}") is not None:
            finding += f"<p>{numbers.show(f'judges.spare.{path}')} {words}</p>"
    return aside, shown + finding + numbers.why_absent()


def _shift(numbers: Numbers) -> tuple[str, str]:
    aside = "Templates, names and lengths that no training has seen, next to those it has."
    groups = ("policy.out_of_distribution", "selection.out_of_distribution", "prm.out_of_distribution")
    measured = [numbers.has_any(path) for path in (*groups, "judges.spare_out_of_distribution")]  # asks for every one
    if not any(measured):
        return aside, numbers.why_absent()
    rows = []
    for label, inside, outside in (
        ("one sample", "policy.pass_at_1", "policy.out_of_distribution.pass_at_1"),
        ("majority vote", "selection.majority", "selection.out_of_distribution.majority"),
        ("weighted by PRM", "selection.prm.weighted.last", "selection.out_of_distribution.prm.weighted.last"),
        ("oracle", "selection.oracle", "selection.out_of_distribution.oracle"),
        ("judge, step accuracy", "judges.spare.step_accuracy", "judges.spare_out_of_distribution.step_accuracy"),
        ("judge, error recall", "judges.spare.error_recall", "judges.spare_out_of_distribution.error_recall"),
        ("PRM, first-error F1", "prm.judge.f1", "prm.out_of_distribution.judge.f1"),
        ("PRM, error found", "prm.judge.error_accuracy", "prm.out_of_distribution.judge.error_accuracy"),
        ("position only, first-error F1", "prm.position_only.f1", "prm.out_of_distribution.position_only.f1"),
        ("length only, first-error F1", "prm.length_only.f1", "prm.out_of_distribution.length_only.f1"),
    ):
        a, b = numbers.number(inside), numbers.number(outside)
        change = points(b - a) if a is not None and b is not None else ""
        rows.append(("", (label, numbers.show(inside), numbers.show(outside), change)))
    shown = table(("", "in distribution", "out of distribution", "change, points"), rows, "The same figures, twice")
    for label, path in (
        ("one sample", "policy.out_of_distribution"),
        ("weighted by PRM", "selection.out_of_distribution.intervals.prm"),
        ("judge", "judges.spare_out_of_distribution"),
        ("PRM, first error", "prm.out_of_distribution.judge"),
    ):
        if missing := numbers.missing(path):
            shown += f"<p>Out of distribution, {label}:{missing}.</p>"
    return aside, shown + numbers.why_absent()


def _costs(numbers: Numbers, meta: Mapping[str, Any]) -> tuple[str, str]:
    aside = "Wall-clock seconds and tokens of each stage of this work directory, all its runs added up."
    keys = ("seconds", "prompt_tokens", "generated_tokens")
    stages: dict[str, dict[str, float]] = {}
    runs = meta.get("runs")
    for row in runs if isinstance(runs, list | tuple) else ():
        if isinstance(row, Mapping) and row.get("stage") is not None:
            sums = stages.setdefault(str(row["stage"]), {})
            for key in keys:
                if is_number(row.get(key)):
                    sums[key] = sums.get(key, 0) + row[key]
    if not stages:
        return aside, "<p>The runs of this work directory left no record of their costs.</p>"
    writers = (seconds, count, count)
    rows = [
        ("", (stage, *(write(sums[key]) if key in sums else "" for key, write in zip(keys, writers, strict=True))))
        for stage, sums in stages.items()
    ]
    totals = [sum(sums.get(key, 0) for sums in stages.values()) for key in keys]
    rows.append(("total", ("all", *(w(t) for w, t in zip(writers, totals, strict=True)))))
    rows = [(kind, tuple(text(cell) for cell in cells)) for kind, cells in rows]
    shown = table(("stage", "time", "prompt tokens", "generated tokens"), rows, "Costs by stage")
    per_solution = numbers.number("judges.spare.tokens_per_solution")
    line = "" if per_solution is None else f"<p>One annotation takes {count(per_solution)} tokens, prompt included.</p>"
    return aside, shown + line


def _steps(examples: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    aside = (
        "A few solutions as the judge saw them: c marks sentences of the problem, r steps of the reference, s steps of "
        "the solution. The bar at the left shows the truth, or the judge's label where no truth is known."
    )
    views = [solution_view(e, is_open=i == 0) for i, e in enumerate(e for e in examples if isinstance(e, Mapping))]
    return aside, "".join(views) or "<p>No solution was kept for this page.</p>"


def _notes(meta: Mapping[str, Any]) -> tuple[str, str]:
    notes = []
    if meta.get("generated"):
        notes += [
            "The data is generated: arithmetic problems whose truth is known by construction. It shows that the "
            "machinery works and what labels of a given quality buy. It says nothing about mathematics at large.",
            "The judge was trained on the world's truth. How accurate it is was chosen by whoever trained it: a "
            "setting of the experiment, not a finding.",
        ]
    notes += [
        "Intervals are percentile bootstraps over problems, of one run. They cover the choice of problems, not that of "
        "the training seed.",
        "The comparison of the PRM with the majority vote was fixed before the run: weighted vote, last step.",
        "Thresholds and the baselines of position and length were chosen on dev problems, and measured on test "
        "problems. The sweep over thresholds, the curves and all aggregations are to be looked at, not chosen from.",
        "What could not be sampled, compared or judged is in no figure, and counted as missing beside it. A solution "
        "that states no answer is wrong.",
    ]
    items = "".join(f"<li>{text(note)}</li>" for note in notes)
    return "What these figures can carry, and what they cannot.", f'<div class="notes"><ul>{items}</ul></div>'


def _footer(meta: Mapping[str, Any]) -> str:
    parts = []
    for key in ("models", "counts"):
        group = meta.get(key)
        if isinstance(group, Mapping) and group:
            shown = (f"{text(k)} {text(count(v) if is_number(v) else v)}" for k, v in group.items())
            parts.append(", ".join(shown))
    if meta.get("device"):
        parts.append(text(meta["device"]))
    return "<br>".join(parts)


def _named(models: Mapping[str, Any], role: str) -> str:
    """The last part of the path of a role's model, in brackets; the footer has the whole path."""
    return f" ({text(str(models[role]).rstrip('/').rsplit('/', 1)[-1])})" if models.get(role) else ""
