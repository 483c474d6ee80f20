"""A policy on the six benchmarks of SPARK (arXiv 2512.03244, stage III): MATH-500, AIME 2024 and 2025, AMC 2023,
OlympiadBench, Minerva-Math.

load_benchmarks   config.data.path/<benchmark>      -> {problems,gold}/<benchmark>.jsonl
solve_benchmarks  these, the generator              -> solutions/<benchmark>_{greedy,sampled}.jsonl
math_benchmarks   all of it; derived                -> metrics.json

All problems are solved in one batch that never empties. Greedy accuracy is that of one solution at temperature 0;
avg@k is the share of right ones among the k of config.solve. A problem that could not be asked, or whose answers are
all undecided, is missing: it is counted beside the figures, and is in none of them.
"""

import dataclasses
import functools
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from spare_jax.evaluation.missing import NO_SOLUTION, UNDECIDED, headlines, tally
from spare_jax.evaluation.statistics import bootstrap, macro_bootstrap, mean_or_none
from spare_jax.judges.outcome import is_correct
from spare_jax.models import huggingface
from spare_jax.records import Gold, Solution
from spare_jax.runs import splits
from spare_jax.runs.models import EngineSettings, Generator, load_to_ask
from spare_jax.runs.models import engine as on_engine
from spare_jax.runs.run import Run, answer
from spare_jax.runs.settings import listed
from spare_jax.runs.splits import ProblemData
from spare_jax.runs.stage import Stage
from spare_jax.solvers import sample
from spare_jax.tasks import competition

logger = logging.getLogger(__name__)

BENCHMARKS = ("math500", *competition.NAMES)
WAYS = ("greedy", "sampled")


def load_benchmarks(run: Run, data: ProblemData, benchmarks: tuple[str, ...] = BENCHMARKS) -> list[str]:
    """Read the problems of the benchmarks, a directory of `data.path` each, and their gold.

    Raises:
      ValueError: there is no such benchmark; StoreError where its file is not there or a line is malformed.
    """
    if unknown := [name for name in benchmarks if name not in BENCHMARKS]:
        raise ValueError(f"config.benchmarks names {unknown[0]!r}: choose among {', '.join(BENCHMARKS)}")
    written = []
    for name in benchmarks:
        loaded = splits.load(name, run.seed, dataclasses.replace(data, path=f"{data.path}/{name}"))
        for kind, records in (("problems", loaded.problems), ("gold", loaded.gold)):
            run.work.write(f"{kind}/{name}", records)
            written.append(f"{kind}/{name}.jsonl")
    return written


def solve_benchmarks(
    run: Run,
    models: Generator,
    engine: EngineSettings,
    solve: sample.SolveSettings,
    benchmarks: tuple[str, ...] = BENCHMARKS,
) -> list[str]:
    """Solve every problem once at temperature 0, and `solve.samples` times as `solve` says."""
    policy = load_to_ask(run, models.generator)
    sampled = dataclasses.replace(solve, tokenizer_digest=huggingface.tokenizer_digest(policy.tokenizer))
    settings = {"greedy": dataclasses.replace(sampled, samples=1, temperature=0.0, top_p=1.0), "sampled": sampled}
    started = {
        f"{name}/{way}/{problem.id}": functools.partial(
            sample.solutions, splits.task_of(name), problem, policy.tokenizer, settings[way]
        )
        for name in benchmarks
        for way in WAYS
        for problem in run.work.read(f"problems/{name}")
    }
    engines = {"generator": on_engine(run, policy, engine, solve.max_tokens)}
    answers = answer(run, "solve_benchmarks", "", engines, started, or_else=lambda *_: [])
    found: dict[str, list[Solution]] = {f"{name}_{way}": [] for name in benchmarks for way in WAYS}
    for program_id, solutions in zip(started, answers, strict=True):
        name, way, _ = program_id.split("/", 2)
        found[f"{name}_{way}"] += solutions
    for file, solutions in found.items():
        run.work.write(f"solutions/{file}", solutions)
    return [f"solutions/{file}.jsonl" for file in found]


def math_benchmarks(
    run: Run, models: Generator, solve: sample.SolveSettings, benchmarks: tuple[str, ...] = BENCHMARKS
) -> list[str]:
    """metrics.json: accuracy of every benchmark, greedy and avg@k, and the means over benchmarks, with intervals."""
    measured, right, missing = {}, {way: {} for way in WAYS}, {way: {} for way in WAYS}
    for name in benchmarks:
        gold = {one.problem_id: one for one in run.work.read(f"gold/{name}")}
        measured[name] = {"problems": len(gold)}
        for way in WAYS:
            solutions = run.work.read(f"solutions/{name}_{way}")
            right[way][name], missing[way][name] = shares, absent = _shares_right(name, gold, solutions)
            measured[name][way] = {
                "accuracy": bootstrap(shares, run.seed) | {"missing": tally(absent)},
                "tokens": mean_or_none([len(solution.token_ids) for solution in solutions]),
                "cut_off": mean_or_none([solution.finish_reason == "length" for solution in solutions]),
            }
    macro: dict[str, Any] = {
        way: macro_bootstrap(list(of.values()), run.seed)
        | {"missing": tally(why for absent in missing[way].values() for why in absent)}
        for way, of in right.items()
    }
    headline, reasons = headlines(
        {f"macro.{way}.mean": (of["mean"], of["n"], of["missing"]) for way, of in macro.items()}
    )
    for path, why in reasons.items():
        logger.warning("%s: %s", path.removeprefix("headline."), why)
    content = {
        "model": models.generator.path,
        "settings": {"solve": listed(solve)},
        "benchmarks": measured,
        "macro": macro,
        "headline": headline,
        **({"reasons": reasons} if reasons else {}),
    }
    run.work.write_json("metrics.json", content)
    return ["metrics.json"]


def _shares_right(
    name: str, gold: Mapping[str, Gold], solutions: Iterable[Solution]
) -> tuple[list[float | None], list[str | None]]:
    """Of every problem the share of right solutions among its decided ones, and why there is none where there is none,
    in the order of their ids."""
    task = splits.task_of(name)
    outcomes: dict[str, list[bool | None]] = {problem_id: [] for problem_id in sorted(gold)}
    for solution in solutions:
        outcomes[solution.problem_id].append(is_correct(task, gold[solution.problem_id], solution))
    shares = [mean_or_none(of) for of in outcomes.values()]
    return shares, [
        None if share is not None else UNDECIDED if of else NO_SOLUTION
        for share, of in zip(shares, outcomes.values(), strict=True)
    ]


STAGES = {
    "load_benchmarks": Stage(load_benchmarks),
    "solve_benchmarks": Stage(solve_benchmarks, reads=("problems",)),
    "math_benchmarks": Stage(math_benchmarks, derived=True),
}

PIPELINE = STAGES
