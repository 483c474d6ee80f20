"""How a trained policy solves: one greedy solution of every problem that it was not trained on, and their figures."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from spare_jax.engines.endpoint import Endpoint
from spare_jax.evaluation.missing import NO_SOLUTION, UNDECIDED, tally
from spare_jax.evaluation.statistics import bootstrap, mean_or_none
from spare_jax.judges.outcome import is_correct
from spare_jax.judges.truth import truth
from spare_jax.models.huggingface import Checkpoint
from spare_jax.records import Gold, Problem, Solution
from spare_jax.runs import solving, splits
from spare_jax.runs.models import EngineSettings
from spare_jax.runs.run import Run
from spare_jax.solvers.sample import SolveSettings

SIDES = {"greedy": "test", "out_of_distribution": splits.HELD_OUT}  # of the figures, and which split each is about


def solve(
    run: Run, label: str, policy: Checkpoint | Endpoint, engine: EngineSettings, how: SolveSettings, name: str
) -> list[str]:
    """Write solutions/`name`.jsonl: one solution of every test and held-out problem by `policy` at temperature 0. In
    journals the stage is called `label`."""
    problems = [p for p in run.work.read("problems") if splits.split_of(p.id) in SIDES.values()]
    kind = f"solutions/{name}"
    greedy = dataclasses.replace(how, samples=1, temperature=0.0)
    solving.solve(run, label, policy, problems, engine, greedy, kind=kind)
    return [f"{kind}.jsonl"]


def figures(run: Run, name: str) -> dict[str, Any]:
    """How often the answers of solutions/`name`.jsonl are right, and how often a right one is reached by a wrong step,
    which outcomes cannot see (None where the task is no world): in the test split and of what is held out, None where
    there is none. A problem that could not be asked is missing, not wrong."""
    gold = {one.problem_id: one for one in run.work.read("gold")}
    answers = {solution.problem_id: solution for solution in run.work.read(f"solutions/{name}")}
    problems, measured = run.work.read("problems"), {}
    for side, split in SIDES.items():
        of_side = [problem for problem in problems if splits.split_of(problem.id) == split]
        measured[side] = _solved(run, [(p, gold[p.id], answers.get(p.id)) for p in of_side]) if of_side else None
    return measured


def _solved(run: Run, asked: Sequence[tuple[Problem, Gold, Solution | None]]) -> dict[str, Any]:
    right = [None if solution is None else is_correct(run.task, gold, solution) for _, gold, solution in asked]
    solutions = [solution for _, _, solution in asked if solution is not None]
    wrong_process = sound = None
    if run.task.world:
        errors = [s is not None and truth(run.task, p, gold, s).first_error is not None for p, gold, s in asked]
        wrong_process = bootstrap([error for error, ok in zip(errors, right, strict=True) if ok], run.seed)
        sound = [None if ok is None else int(ok and not error) for error, ok in zip(errors, right, strict=True)]
    accuracy = bootstrap(right, run.seed)
    return {
        "accuracy": accuracy["mean"],
        "accuracy_interval": accuracy,
        "missing": tally(
            None if ok is not None else NO_SOLUTION if solution is None else UNDECIDED
            for ok, (_, _, solution) in zip(right, asked, strict=True)
        ),
        "wrong_process": wrong_process and wrong_process["mean"],
        "wrong_process_interval": wrong_process,
        "steps": mean_or_none([len(solution.steps) for solution in solutions]),
        "tokens": mean_or_none([len(solution.token_ids) for solution in solutions]),
        "cut_off": mean_or_none([solution.finish_reason == "length" for solution in solutions]),
        # One per problem, in the order of their ids: whether the answer is right; and whether no step is wrong either.
        "right": [None if ok is None else int(ok) for ok in right],
        "sound": sound,
    }
