"""The tables of docs/results/annotation_tables.md, from docs/results/annotation.json.

    python -m spare_jax.studies.annotation_tables docs/results/annotation.json > docs/results/annotation_tables.md

The JSON is made by `spare_jax.studies.collect`.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from spare_jax.studies.markdown import interval, number, print_tables, rate, table

SIDES = {"in_distribution": "in distribution", "out_of_distribution": "out of distribution"}


def tables(study: Mapping[str, Any]) -> str:
    """All tables of the study's cells as Markdown; rates are fractions, differences have 95 % intervals."""
    parts = [
        "# The annotation study: all figures",
        "Made by `python -m spare_jax.studies.annotation_tables docs/results/annotation.json`. Rates are fractions, "
        "intervals 95 % bootstrap over problems, tokens and seconds per solution. All data is generated.",
    ]
    for cell in study["cells"]:
        parts.append(f"## {cell['world']}, seed {cell['seed']}")
        comparison, value = cell["comparison"], cell["label_value"]
        for side, words in SIDES.items() if comparison else ():
            group = comparison[side]
            parts.append(
                f"### Judges, {words}: {group['solutions']} solutions of {group['problems']} problems, "
                f"{rate(group['steps_right'])} of the steps right"
            )
            parts.append(_judges(group, comparison["seconds_per_solution"]))
            parts.append("First-error F1 of the weighted ensemble minus that of others:")
            parts.append(table(("", "difference"), [(n, interval(d)) for n, d in group["ensemble_minus"].items()]))
            parts.append("Step accuracy by how many reference steps a step was aligned with (steps):")
            parts.append(_aligned(group["aligned"]))
        if comparison:
            parts.append("### Agreement of judges beyond chance (kappa), in distribution")
            parts.append(_kappa(comparison["in_distribution"]["kappa"]))
        for side, words in SIDES.items() if value else ():
            parts.append(f"### What labels buy, {words}")
            parts.append(_label_value(value, side))
        if value:
            parts.append("### PRM minus majority over the rates at which true labels are flipped, in distribution")
            parts.append(_surface(value, cell["settings"]["flips"]))
    return "\n\n".join(parts) + "\n"


def _judges(group: Mapping[str, Any], seconds: Mapping[str, float | None]) -> str:
    head = (
        "judge", "step accuracy", "error precision", "error recall", "right precision", "right recall",
        "first-error F1", "unlabelled", "tokens", "generated", "seconds",
    )  # fmt: skip
    keys = (
        "step_accuracy", "error_precision", "error_recall", "correct_precision", "correct_recall", "first_error_f1",
        "unlabelled_rate",
    )  # fmt: skip
    rows = [
        (
            name,
            *(rate(figures[key]) for key in keys),
            number(figures["tokens_per_solution"], 0),
            number(figures["generated_per_solution"], 0),
            number(seconds.get(name), 3),
        )
        for name, figures in group["judges"].items()
    ]
    rows += [
        (name, *(["-"] * 5), rate(group[key]["f1"]), *(["-"] * 4))
        for name, key in (("never wrong", "never_wrong"), ("always the first step", "always_first"))
    ]
    return table(head, rows)


def _aligned(by_judge: Mapping[str, Any]) -> str:
    kinds = ("none", "one", "several")
    rows = [
        (name, *(f"{rate(by_kind[kind]['step_accuracy'])} ({by_kind[kind]['n']})" for kind in kinds))
        for name, by_kind in by_judge.items()
    ]
    return table(("judge", *kinds), rows)


def _kappa(by_judge: Mapping[str, Mapping[str, float | None]]) -> str:
    rows = [(name, *(rate(row.get(other)) for other in by_judge)) for name, row in by_judge.items()]
    return table(("", *by_judge), rows)


def _label_value(value: Mapping[str, Any], side: str) -> str:
    head = (
        "labels of", "error precision", "error recall", "right recall", "majority", "weighted", "best of n",
        "weighted minus majority", "first-error F1",
    )  # fmt: skip
    rows = []
    for name, trained in value.items():
        labels, figures = trained.get("labels", {}), trained[side]
        rows.append(
            (
                name,
                *(rate(labels.get(key)) for key in ("error_precision", "error_recall", "correct_recall")),
                rate(figures["majority"]),
                rate(figures["weighted"]["last"]),
                rate(figures["best_of_n"]["last"]),
                interval(figures["minus_majority"]),
                rate(figures["first_error"]["f1"]),
            )
        )
    return table(head, rows)


def _surface(value: Mapping[str, Any], flips: Sequence[float]) -> str:
    """Rows: how many wrong steps are called right; columns: how many right ones are called wrong."""
    rows = []
    for incorrect in flips:
        names = [
            f"truth_{100 * correct:.0f}_{100 * incorrect:.0f}" if correct or incorrect else "truth" for correct in flips
        ]
        rows.append((f"{incorrect:g}", *(interval(value[n]["in_distribution"]["minus_majority"]) for n in names)))
    return table(("wrong called right \\ right called wrong", *(f"{correct:g}" for correct in flips)), rows)


if __name__ == "__main__":
    print_tables(tables, sys.argv[1:])
