"""The tables of docs/results/spark.md, from docs/results/spark.json.

    python -m spare_jax.studies.spark_tables docs/results/spark.json

The JSON is what `spare_jax.studies.collect` has put together from the three parts of the study: a cell of labels per
seed, one per reward model, and one per reward and seed. A reward's seeds are taken together, each with its own
problems.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from spare_jax.evaluation.statistics import bootstrap, mean_or_none, paired_bootstrap, ratio_or_none
from spare_jax.studies.markdown import interval, number, print_tables, rate, table

_Cells = Sequence[Mapping[str, Any]]
AGAINST = ("random", "rlvr")  # the rewards that the others are set against


def tables(study: Mapping[str, Any]) -> str:
    """All tables of the study's cells as Markdown; rates are fractions, intervals 95 % bootstrap over problems."""
    cells = sorted(study["cells"], key=lambda cell: cell["seed"])
    labels, verifiers = ([cell for cell in cells if key in cell] for key in ("targets", "kind"))
    policies: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for cell in cells:
        if "reward" in cell:
            policies[cell["reward"]].append(cell)
    parts = []
    for cell in labels:
        parts += [
            f"## Labels, {cell['world']}, seed {cell['seed']}",
            _labels(cell),
            "What critiques did:",
            _critiques(cell),
        ]
    if verifiers:
        parts += ["## Reward models", _verifiers(verifiers), "The same as rankers:", _rankers(verifiers)]
    if policies:
        parts += ["## Policies, greedy", _policies(policies), "How they were trained:", _courses(policies)]
    for other in AGAINST:
        if other in policies:
            parts += [f"The reward minus {other}, of the seeds that both have:", _differences(policies, other)]
    return "\n\n".join(parts) + "\n"


def _with_interval(mean: float | None, low: float | None, high: float | None) -> str:
    return "-" if mean is None else f"{rate(mean)} [{rate(low)}, {rate(high)}]"


def _labels(cell: Mapping[str, Any]) -> str:
    head = (
        "mode", "passes", "tokens", "kept", "first-error F1", "step accuracy", "error precision", "error recall",
        "answer right", "says Yes",
    )  # fmt: skip
    rows = []
    for mode, found in cell["targets"].items():
        quality = found["quality"]
        within = quality["first_error_f1_interval"]
        rows.append(
            (
                mode,
                number(found["passes_per_problem"], 0),
                number(found["tokens_per_problem"], 0),
                rate(found["kept_share"]),
                _with_interval(quality["first_error_f1"], within["low"], within["high"]),
                *(rate(quality[key]) for key in ("step_accuracy", "error_precision", "error_recall")),
                *(rate(quality[key]) for key in ("outcome_accuracy", "says_right")),
            )
        )
    return table(head, rows)


def _critiques(cell: Mapping[str, Any]) -> str:
    rows = [
        (mode, of, *(str(counted[key]) for key in ("n", "changed", "fixed", "broke")))
        for mode, found in cell["targets"].items()
        if found["critique"]
        for of, counted in found["critique"].items()
    ]
    return table(("mode", "verdicts on", "all", "changed", "fixed", "broke"), rows)


def _verifiers(cells: _Cells) -> str:
    head = (
        "targets", "kind", "seed", "first-error F1", "errors found", "right solutions", "step accuracy",
        "answer right", "says Yes", "tokens written",
    )  # fmt: skip
    rows = []
    for cell in cells:
        found = cell["in_distribution"]
        first, answers = found["first_error"], found["answers"]
        rows.append(
            (
                cell["mode"],
                cell["kind"],
                str(cell["seed"]),
                _with_interval(first["f1"], first["low"], first["high"]),
                *(rate(first[key]) for key in ("error_accuracy", "correct_accuracy")),
                rate(found["steps"]["step_accuracy"]),
                *(rate(answers[key]) for key in ("outcome_accuracy", "says_right")),
                number(found["written_per_verification"], 0),
            )
        )
    return table(head, rows)


def _rankers(cells: _Cells) -> str:
    head = ("targets", "kind", "seed", "one sample", "majority", "best of N", "weighted vote", "weighted - majority")
    rows = []
    for cell in cells:
        selection = cell["in_distribution"]["selection"]
        ranker = selection.get("prm") or selection.get("outcome")
        within = selection["intervals"]
        rows.append(
            (
                cell["mode"],
                cell["kind"],
                str(cell["seed"]),
                *(rate(within[key]["mean"]) for key in ("one_sample", "majority")),
                *(rate(ranker[key]["last"]) if ranker else "-" for key in ("best_of_n", "weighted")),
                interval(selection["prm_minus_majority"]) if "prm_minus_majority" in selection else "-",
            )
        )
    return table(head, rows)


def _all(cells: _Cells, key: str) -> list[int]:
    return [value for cell in cells for value in cell["greedy"][key]]


def _policies(policies: Mapping[str, _Cells]) -> str:
    head = ("reward", "seeds", "accuracy", "right and sound", "wrong process", "steps", "tokens")
    rows = []
    for reward, cells in policies.items():
        right, sound = _all(cells, "right"), _all(cells, "sound")
        rows.append(
            (
                reward,
                str(len(cells)),
                *(_with_interval(*(bootstrap(of)[key] for key in ("mean", "low", "high"))) for of in (right, sound)),
                rate(ratio_or_none(sum(right) - sum(sound), sum(right))),
                *(number(mean_or_none([cell["greedy"][key] for cell in cells]), 1) for key in ("steps", "tokens")),
            )
        )
    return table(head, rows)


def _courses(policies: Mapping[str, _Cells]) -> str:
    """Means over the seeds of what the first and the last iterations saw (`watch.course`)."""
    head = (
        "reward", "iterations", "tokens sampled", "tokens of the judge", "reward, first", "last", "valid form, first",
        "last", "steps, first", "last", "held out: right, first", "last", "paid wrongly, first", "last",
    )  # fmt: skip
    rows = []
    for reward, cells in policies.items():
        courses = [cell["course"] for cell in cells]

        def mean(found):
            known = [value for value in found if value is not None]
            return mean_or_none(known)

        ends = [
            mean([course[end].get(key) for course in courses])
            for key in ("reward", "valid", "steps")
            for end in ("first", "last")
        ]
        watched = [
            mean([course["held_out"][end][key] for course in courses if course["held_out"]])
            for key in ("correct", "false_reward")
            for end in (0, -1)
        ]
        rows.append(
            (
                reward,
                number(mean([cell["training"]["iterations"] for cell in cells]), 0),
                *(number(mean([course[key] for course in courses]), 0) for key in ("tokens", "judge_tokens")),
                *(number(value, 2) for value in ends),
                *(rate(value) for value in watched),
            )
        )
    return table(head, rows)


def _differences(policies: Mapping[str, _Cells], other: str) -> str:
    rows = []
    for reward, cells in policies.items():
        shared = {cell["seed"] for cell in cells} & {cell["seed"] for cell in policies[other]}
        ours, theirs = ([cell for cell in found if cell["seed"] in shared] for found in (cells, policies[other]))
        if reward != other and shared:
            found = (interval(paired_bootstrap(_all(ours, key), _all(theirs, key))) for key in ("right", "sound"))
            rows.append((reward, str(len(shared)), *found))
    return table(("reward", "seeds", "accuracy", "right and sound"), rows)


if __name__ == "__main__":
    print_tables(tables, sys.argv[1:])
