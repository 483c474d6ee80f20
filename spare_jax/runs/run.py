"""One run over a work directory: what every stage is handed."""

import collections
import dataclasses
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import tqdm

from spare_jax import programs
from spare_jax.engines.endpoint import EndpointEngine
from spare_jax.engines.local import LocalEngine
from spare_jax.programs import Failure
from spare_jax.records import Gold, Judgement, Problem, Solution
from spare_jax.storage.store import WorkDir
from spare_jax.tasks.task import Task

logger = logging.getLogger(__name__)

Engine = LocalEngine | EndpointEngine


@dataclasses.dataclass(frozen=True)
class MeshSizes:
    """Devices along data (-1: all that the others leave), fsdp and tensor.

    A machine without accelerator counts as `cpu_devices` devices: one thread each keeps two cores busier than two
    threads on one small matrix product (1.6 times the tokens per second in training the embedded models).
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    cpu_devices: int = 2


@dataclasses.dataclass
class Run:
    """One run over a work directory: its task, its seed, which decides every draw and all orders, its mesh, and what
    it has measured so far."""

    work: WorkDir
    task: Task
    seed: int
    mesh: jax.sharding.Mesh
    measured: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    failures: dict[str, dict[str, Failure]] = dataclasses.field(default_factory=dict)  # by stage: programs, and why
    asked: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # programs, by stage

    @property
    def lanes(self) -> int:
        """Threads of an engine: one per device of a split CPU (engines/local.py), else 1."""
        split = self.mesh.devices.flat[0].platform == "cpu" and self.mesh.shape["data"] == self.mesh.size
        return self.mesh.size if split else 1

    @property
    def inference_mesh(self) -> jax.sharding.Mesh | None:
        """Where engines compute: the run's mesh, or one CPU device that the lanes share."""
        return self.mesh if self.lanes == 1 else None

    def records(self) -> tuple[list[Problem], dict[str, Problem], dict[str, Gold], list[Solution]]:
        """Problems as a list and by id, gold by problem, solutions."""
        found = self.work.read("problems")
        gold = {g.problem_id: g for g in self.work.read("gold")}
        return found, {p.id: p for p in found}, gold, self.work.read("solutions")

    def judgements(self, judge: str) -> dict[str, Judgement]:
        """A judge's judgements by solution, empty where it was not asked."""
        kind = f"judgements/{judge}"
        return {j.solution_id: j for j in self.work.read(kind)} if self.work.file(kind).exists() else {}


class StageFailed(ValueError):
    """Nothing that a stage asked for was answered, or less than it can go on with."""


def answer(
    run: Run,
    stage: str,
    part: str,
    engines: Mapping[str, Engine],
    started: Mapping[str, Callable[[], programs.Program]],
    or_else: Callable[[str, str], Any],
) -> list[Any]:
    """Run programs by their ids under a journal and a progress bar; their results in the order of `started`.

    The result of a program that failed is `or_else(its id, why)`. It is counted, and so is a judgement that says
    itself why there is none: the run's last line tells both, and runs/<n>.json names them.

    Raises:
      StageFailed: every program failed; nothing is to be made of that.
    """
    results: dict[str, Any] = {}
    failures: dict[str, Failure] = {}
    name, began = f"{stage} {part}".strip(), time.perf_counter()
    with run.work.journal(stage, part) as journal, progress_bar(len(started), name) as bar:
        for program_id, result in programs.run(engines, started.items(), journal):
            if (failure := _failure_of(result)) is not None:
                failures[program_id] = failure
            results[program_id] = or_else(program_id, result.message) if isinstance(result, Failure) else result
            bar.set_postfix_str(_work_done(engines.values(), time.perf_counter() - began), refresh=False)
            bar.update()
    run.asked[stage] += len(started)
    if failures:
        run.failures.setdefault(stage, {}).update(failures)
        if len(failures) == len(started):
            raise StageFailed(f"stage {stage}: all of {len(started)} failed: {why(failures.values())}")
        logger.warning("%s: %d of %d failed: %s", name, len(failures), len(started), why(failures.values()))
    measured = run.measured.setdefault(stage, {})
    for engine in engines.values():
        for key, value in engine.stats.items():
            measured[key] = measured.get(key, 0) + value
    return [results[program_id] for program_id in started]


def need_all_answers(run: Run, stage: str) -> None:
    """Raises StageFailed where something that the stage has asked so far failed for a cause that may pass: what it
    asks next is about all the answers, and would not be asked again when the others have come."""
    if passing := [failure for failure in run.failures.get(stage, {}).values() if failure.passing]:
        raise StageFailed(f"stage {stage}: {len(passing)} of {run.asked[stage]} failed: {why(passing)}")


def why(failures: Iterable[Failure]) -> str:
    """The reasons of failures, the most frequent first, three at most, and what to do where they may pass. Messages
    that differ in their numbers alone are one reason, told as it was first."""
    found = list(failures)
    first: dict[str, str] = {}
    kinds = collections.Counter(_NUMBER.sub("#", failure.message) for failure in found)
    for failure in found:
        first.setdefault(_NUMBER.sub("#", failure.message), failure.message)
    told = [f"{first[kind]} ({count})" for kind, count in kinds.most_common(3)]
    more = [f"{len(kinds) - 3} more reasons in runs/"] if len(kinds) > 3 else []
    again = ["the same command asks again"] if any(failure.passing for failure in found) else []
    return "; ".join(told + more + again)


_NUMBER = re.compile(r"[0-9]+")


def _failure_of(result: Any) -> Failure | None:
    """Why a program has no result, or its judgement, or each of its judgements, is none; None where there is one."""
    if isinstance(result, Failure):
        return result
    said = [result] if isinstance(result, Judgement) else result if isinstance(result, tuple) else ()
    failed = [one.failure for one in said if isinstance(one, Judgement) and one.failure]
    return Failure(failed[0], passing=False) if failed and len(failed) == len(said) else None


def progress_bar(total: int, description: str, unit: str = "it") -> tqdm.tqdm:
    """A bar that shows stage, rate and remaining time; calm where nobody watches a terminal."""
    return tqdm.tqdm(total=total, desc=f"{description:<22}", unit=unit, mininterval=1.0, maxinterval=5.0, ncols=100)


def _work_done(engines: Iterable[Engine], seconds: float) -> str:
    """Tokens per second, written and read, and the share of the prompts' tokens that was not read again."""
    total = collections.Counter()
    for engine in engines:
        total.update(engine.stats)
    asked, computed = total["prompt_tokens"] + total["scored_tokens"], total["computed_tokens"]
    reused = max(0.0, 1 - computed / asked) if asked else 0.0
    return f"{(total['generated_tokens'] + computed) / max(seconds, 1e-9):,.0f} tok/s, {reused:.0%} reused"
