"""The tables of docs/results/spark.md, from docs/results/spark.json.

    python -m spare_jax.studies.spark_tables docs/results/spark.json

The JSON is made by `spare_jax.studies.collect` of the three parts of the study: a cell of labels per seed, a cell per
reward model, and a cell per policy. The seeds of a reward, with the same guards, are averaged; each seed has problems
of its own.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from spare_jax.evaluation.statistics import mean_or_none
from spare_jax.studies import greedy
from spare_jax.studies.markdown import interval, number, print_tables, rate, rate_within, table

AGAINST = ("random", "rlvr")  # the rewards with which the others are compared


def tables(study: Mapping[str, Any]) -> str:
    """All tables of the study's cells as Markdown; rates are fractions, intervals 95 % bootstrap over problems."""
    cells = sorted(study["cells"], key=lambda cell: cell["seed"])
    labels, verifiers = ([cell for cell in cells if key in cell] for key in ("targets", "kind"))
    policies: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for cell in cells:
        if "reward" in cell:
            policies[_reward_and_guards(cell)].append(cell)
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
    if progress := _progress(policies):
        parts += ["Right on held-out problems as each iteration began, and thousands of tokens to its end:", progress]
    if judged := _approvals(policies):
        parts += ["What the judge that paid says of their greedy answers:", judged]
    for other in AGAINST:
        if differences := _differences(policies, other):
            parts += [f"The reward minus {other}, of the seeds that both have:", differences]
    return "\n\n".join(parts) + "\n"


def _reward_and_guards(cell: Mapping[str, Any]) -> str:
    """A policy's reward, followed by the guards that differ from those of the study's config."""
    grpo = cell["settings"]["grpo"]
    alarm = grpo["alarms"]["paid_wrongly"]["threshold"]
    guards = {
        "any form": not grpo["forbidden"],
        "no step twice": "repeated_step" in grpo["forbidden"],
        f"at least {grpo['least_steps']} steps": grpo["least_steps"],
        f"at most {grpo['most_steps']} steps": grpo["most_steps"],
        f"alarm above {alarm}": alarm < 1,
    }
    return ", ".join([cell["reward"], *(name for name, is_set in guards.items() if is_set)])


def _labels(cell: Mapping[str, Any]) -> str:
    head = (
        "mode", "passes", "tokens", "kept", "first-error F1", "step accuracy", "error precision", "error recall",
        "answer right", "says Yes",
    )  # fmt: skip
    rows = []
    for mode, target in cell["targets"].items():
        quality = target["quality"]
        rows.append(
            (
                mode,
                number(target["passes_per_problem"], 0),
                number(target["tokens_per_problem"], 0),
                rate(target["kept_share"]),
                rate_within({"mean": quality["first_error_f1"], **quality["first_error_f1_interval"]}),
                *(rate(quality[key]) for key in ("step_accuracy", "error_precision", "error_recall")),
                *(rate(quality[key]) for key in ("outcome_accuracy", "says_right")),
            )
        )
    return table(head, rows)


def _critiques(cell: Mapping[str, Any]) -> str:
    rows = [
        (mode, verdicts, *(str(counted[key]) for key in ("n", "changed", "fixed", "broke")))
        for mode, target in cell["targets"].items()
        if target["critique"]
        for verdicts, counted in target["critique"].items()
    ]
    return table(("mode", "verdicts on", "all", "changed", "fixed", "broke"), rows)


def _verifiers(cells: greedy.Cells) -> str:
    head = (
        "targets", "kind", "seed", "first-error F1", "errors found", "right solutions", "step accuracy",
        "answer right", "says Yes", "tokens written",
    )  # fmt: skip
    rows = []
    for cell in cells:
        figures = cell["in_distribution"]
        first, answers = figures["first_error"], figures["answers"]
        rows.append(
            (
                cell["mode"],
                cell["kind"],
                str(cell["seed"]),
                rate_within({"mean": first["f1"], "low": first["low"], "high": first["high"]}),
                *(rate(first[key]) for key in ("error_accuracy", "correct_accuracy")),
                rate(figures["steps"]["step_accuracy"]),
                *(rate(answers[key]) for key in ("outcome_accuracy", "says_right")),
                number(figures["written_per_verification"], 0),
            )
        )
    return table(head, rows)


def _rankers(cells: greedy.Cells) -> str:
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


def _policies(policies: Mapping[str, greedy.Cells]) -> str:
    rows = []
    for reward, cells in policies.items():
        lengths = (number(mean_or_none([cell["greedy"][key] for cell in cells]), 1) for key in ("steps", "tokens"))
        rows.append((reward, str(len(cells)), *greedy.accuracies(cells, "greedy"), *lengths))
    return table(("reward", "seeds", *greedy.ACCURACIES, "steps", "tokens"), rows)


def _courses(policies: Mapping[str, greedy.Cells]) -> str:
    """Means over the seeds: of the first and of the last ten iterations, and of the first and the last sampling of the
    held-out problems (`watch.course`)."""
    head = (
        "reward", "iterations", "tokens sampled", "tokens of the judge", "reward, first", "last", "valid form, first",
        "last", "steps, first", "last", "a step twice, first", "last", "held out: right, first", "last",
        "paid wrongly, first", "last",
    )  # fmt: skip
    rows = []
    for reward, cells in policies.items():
        courses = [cell["course"] for cell in cells]
        ends = [
            mean_or_none([course[end][key] for course in courses])
            for key in ("reward", "valid", "steps", "format/repeated_step")
            for end in ("first", "last")
        ]
        watched = [
            mean_or_none([course["held_out"][end][key] for course in courses if course["held_out"]])
            for key in ("correct", "false_reward")
            for end in (0, -1)
        ]
        rows.append(
            (
                reward,
                number(mean_or_none([cell["training"]["iterations"] for cell in cells]), 0),
                *(number(mean_or_none([course[key] for course in courses]), 0) for key in ("tokens", "judge_tokens")),
                *(number(value, 2) for value in ends),
                *(rate(value) for value in watched),
            )
        )
    return table(head, rows)


def _progress(policies: Mapping[str, greedy.Cells]) -> str:
    """For the iterations in which the held-out problems were sampled: the share of right answers before the update, and
    the tokens that policy and judge have written for training up to the iteration's end. Means over the seeds that have
    the iteration; empty where no seed was watched."""
    seen: dict[tuple[str, int], list[Mapping[str, float]]] = defaultdict(list)
    for reward, cells in policies.items():
        for asked in (iteration for cell in cells for iteration in cell["course"]["held_out"]):
            seen[reward, asked["step"]].append(asked)
    steps = sorted({step for _, step in seen})
    rows = [
        (reward, *(_right_after(seen[reward, step]) if (reward, step) in seen else "-" for step in steps))
        for reward in policies
    ]
    return table(("reward", *map(str, steps)), rows) if steps else ""


def _right_after(asked: Sequence[Mapping[str, float]]) -> str:
    tokens = mean_or_none([one["tokens"] + one["judge_tokens"] for one in asked])
    return f"{rate(mean_or_none([one['correct'] for one in asked]))} ({number(tokens and tokens / 1000, 0)})"


def _approvals(policies: Mapping[str, greedy.Cells]) -> str:
    """How often a policy's judge says Yes to its greedy answers, as "yes of n", summed over the seeds whose answers
    were judged; empty where there are none."""
    head = (
        "reward", "seeds", "yes to right answers", "right, yes, no step called wrong", "yes to wrong answers",
        "wrong, yes, no step called wrong", "yes to wrong answers with a step twice",
    )  # fmt: skip
    rows = []
    for reward, cells in policies.items():
        judged = [approvals for cell in cells if (approvals := cell.get("approvals"))]
        if judged:
            right, wrong, repeating = (
                {key: sum(approvals[group][key] for approvals in judged) for key in ("n", "yes", "sound")}
                for group in ("right", "wrong", "wrong_repeating")
            )
            counts = [text for side in (right, wrong) for text in (f"{side['yes']} of {side['n']}", str(side["sound"]))]
            rows.append((reward, str(len(judged)), *counts, f"{repeating['yes']} of {repeating['n']}"))
    return table(head, rows) if rows else ""


def _differences(policies: Mapping[str, greedy.Cells], other: str) -> str:
    """The rewards' differences to `other`; empty where no reward has a seed in common with it."""
    rows = []
    for reward, cells in policies.items():
        seeds, intervals = greedy.differences(cells, policies.get(other, ()), "greedy")
        if reward != other and seeds:
            rows.append((reward, str(seeds), *intervals))
    return table(("reward", "seeds", *greedy.DIFFERENCES), rows) if rows else ""


if __name__ == "__main__":
    print_tables(tables, sys.argv[1:])
