"""The table of the main job's seeds, from the file that `spare_jax.studies.main_job` has written.

python -m spare_jax.studies.main_job_tables docs/results/main_job.json
"""

import statistics
import sys
from collections.abc import Callable, Mapping
from typing import Any

from spare_jax.studies.markdown import interval, number, print_tables, rate, table

Row = Mapping[str, Any]


def _at_least(key: str, least: float) -> Callable[[Row], bool]:
    return lambda row: row[key] is not None and row[key] >= least


def _gains(row: Row) -> bool:
    difference = row["prm_minus_majority"]
    return difference["mean"] is not None and difference["mean"] >= 0.05 and difference["low"] > 0


# What a seed should reach: the figure, its name in the table, the bar in words, and whether a row reaches it.
BARS = (
    ("step_accuracy", "step accuracy", ">= .92", _at_least("step_accuracy", 0.92)),
    ("error_precision", "error precision", ">= .85", _at_least("error_precision", 0.85)),
    ("error_recall", "error recall", ">= .85", _at_least("error_recall", 0.85)),
    ("wrong_reference_drop", "drop with a wrong reference", ">= .10", _at_least("wrong_reference_drop", 0.10)),
    ("explanation_agreement", "label as explained", ">= .99", _at_least("explanation_agreement", 0.99)),
    ("reference_right", "reference right", ">= .99", _at_least("reference_right", 0.99)),
    ("prm_minus_majority", "PRM - majority", ">= .05, above 0", _gains),
    ("seconds", "seconds", "<= 600", lambda row: row["seconds"] is not None and row["seconds"] <= 600),
)
_OTHERS = {
    "pass_at_1": "pass@1", "majority": "majority", "weighted": "weighted by PRM", "oracle": "oracle",
    "first_error_f1": "first-error F1",
}  # fmt: skip


def tables(archived: Mapping[str, Any]) -> str:
    """Seeds, their mean and range, and how many meet each bar, as Markdown; rates are fractions, intervals 95 %
    bootstrap over the problems of a seed."""
    rows = archived["rows"]
    names = {key: name for key, name, *_ in BARS} | _OTHERS
    body = [(str(row["seed"]), *(_shown(key, row[key]) for key in names)) for row in rows]
    values = {key: [known for row in rows if (known := _value(row[key])) is not None] for key in names}
    for word, summary in (("mean", statistics.fmean), ("least", min), ("most", max)):
        body.append((word, *(_figure(key, summary(known) if known else None) for key, known in values.items())))
    met = [[over(row) for row in rows] for *_, over in BARS]
    body.append(("wanted", *(words for _, _, words, _ in BARS), *[""] * len(_OTHERS)))
    body.append(("met by", *(f"{sum(seeds)} of {len(rows)}" for seeds in met), *[""] * len(_OTHERS)))
    all_met = sum(all(bars) for bars in zip(*met, strict=True))
    return (
        f"`{archived['config']}`, annotator of digest {archived['teacher']}. {all_met} of {len(rows)} seeds meet all "
        f"that is wanted.\n\n{table(('seed', *names.values()), body)}\n"
    )


def _value(figure: Any) -> float | None:
    return figure["mean"] if isinstance(figure, Mapping) else figure


def _shown(key: str, figure: Any) -> str:
    return interval(figure) if isinstance(figure, Mapping) else _figure(key, figure)


def _figure(key: str, value: float | None) -> str:
    return number(value, 0) if key == "seconds" else rate(value)


if __name__ == "__main__":
    print_tables(tables, sys.argv[1:])
