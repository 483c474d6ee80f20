"""The tables of docs/results/offline_rl.md, from docs/results/offline_rl.json.

    python -m spare_jax.studies.offline_rl_tables docs/results/offline_rl.json

The JSON is made by `spare_jax.studies.collect`: one cell per world, method and seed. The seeds of a method are
averaged; each has problems of its own.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from spare_jax.evaluation.statistics import mean_or_none, ratio_or_none
from spare_jax.studies import greedy
from spare_jax.studies.markdown import number, print_tables, rate, table

SIDES = {"greedy": "in distribution", "out_of_distribution": "out of distribution"}
OURS = "spare_orpo"

_Cells = Mapping[str, greedy.Cells]  # of one world, by method


def tables(study: Mapping[str, Any]) -> str:
    """All tables of the study's cells as Markdown; rates are fractions, intervals 95 % bootstrap over problems."""
    worlds: dict[str, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for cell in sorted(study["cells"], key=lambda cell: cell["seed"]):
        worlds[cell["world"]][cell["method"]].append(cell)
    parts = []
    for world, cells in worlds.items():
        seeds = sorted({cell["seed"] for of_method in cells.values() for cell in of_method})
        parts.append(f"## {world}, seeds {', '.join(map(str, seeds))}")
        for side, words in SIDES.items():
            parts.append(f"Greedy answers {words}:")
            parts.append(_accuracies(cells, side))
            if OURS in cells:
                parts.append(f"{OURS} minus the other method, {words}, of the seeds that both have:")
                parts.append(_differences(cells, side))
        parts.append("What the methods learned from:")
        parts.append(_trained_on(cells))
    return "\n\n".join(parts) + "\n"


def _mean(cells: Sequence[Mapping[str, Any]], key: str) -> float | None:
    return mean_or_none([cell[key] for cell in cells if cell[key] is not None])


def _accuracies(cells: _Cells, side: str) -> str:
    head = ("method", "seeds", *greedy.ACCURACIES, "steps", "tokens", "cut off")
    rows = []
    for method, seeds in cells.items():
        lengths = [_mean([cell[side] for cell in seeds], key) for key in ("steps", "tokens", "cut_off")]
        lengths = (number(value, digits) for value, digits in zip(lengths, (2, 1, 3), strict=True))
        rows.append((method, str(len(seeds)), *greedy.accuracies(seeds, side), *lengths))
    return table(head, rows)


def _differences(cells: _Cells, side: str) -> str:
    rows = []
    for method, theirs in cells.items():
        seeds, intervals = greedy.differences(cells[OURS], theirs, side)
        if method != OURS and seeds:
            rows.append((method, *intervals))
    return table(("method", *greedy.DIFFERENCES), rows)


def _trained_on(cells: _Cells) -> str:
    head = ("method", "pairs", "with the reference chosen", "steps of training", "best step", "best dev loss")
    rows = []
    for method, seeds in cells.items():
        pairs = [cell["pairs"] for cell in seeds if cell["pairs"]]
        total = sum(counts["pairs"] for counts in pairs)
        training = [cell["training"] for cell in seeds]
        rows.append(
            (
                method,
                number(ratio_or_none(total, len(seeds)), 0) if pairs else "-",
                rate(ratio_or_none(sum(counts["reference_pairs"] for counts in pairs), total)) if pairs else "-",
                *(number(_mean(training, key), 0) for key in ("steps", "best_step")),
                number(_mean(training, "best_loss"), 3),
            )
        )
    return table(head, rows)


if __name__ == "__main__":
    print_tables(tables, sys.argv[1:])
