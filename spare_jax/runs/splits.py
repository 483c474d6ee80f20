"""The problems of a run and their splits: train, dev, test, and for worlds what all training has held out.

A problem's id begins with its split's name.
"""

import dataclasses
import functools
import random
from collections.abc import Sequence

from spare_jax.formats import files
from spare_jax.formats.fields import prompt
from spare_jax.keys import FileName
from spare_jax.records import Gold, LabelledSolution, Problem
from spare_jax.tasks import arithmetic, competition, gsm8k, math, multihop, musique, sparp, spatial, stepgame
from spare_jax.tasks.answers import MathVerifier
from spare_jax.tasks.task import Task, world_of

WORLDS = {task.name: task for task in (arithmetic.TASK, multihop.TASK, spatial.TASK)}
# Real data sets by their names: how their task is made, and how a split is read. A new one is a file in tasks/ and a
# line here.
_DATA_SETS = {
    "gsm8k": (lambda: gsm8k.task(MathVerifier()), gsm8k.load),
    "math": (lambda: math.task(MathVerifier()), math.load),
    "math500": (lambda: math.task(MathVerifier()), math.load_500),
    "musique": (musique.task, musique.load),
    "sparp": (sparp.task, sparp.load),
    "stepgame": (stepgame.task, stepgame.load),
    **{
        name: (lambda name=name: competition.task(name, MathVerifier()), functools.partial(competition.load, name))
        for name in competition.NAMES
    },
}
TASKS = (*WORLDS, *_DATA_SETS)
HELD_OUT = "held_out"
DEV_SHARE = 0.1  # the paper's 90:10 split of GSM8K's train file


@dataclasses.dataclass(frozen=True)
class SplitSizes:
    """How many problems of train and dev are taken; None: all there are."""

    train_problems: int | None = None
    dev_problems: int | None = None


@dataclasses.dataclass(frozen=True)
class ProblemData(SplitSizes):
    """Where problems come from, and how many of each split are taken.

    `path` is the directory of a real data set's files, which no world has. A malformed line is an error, or with
    `on_error` "skip" counted. Of a world's test problems there are `held_out_problems` per kind that all training has
    held out.
    """

    test_problems: int | None = None
    held_out_problems: int = 0
    path: FileName = ""
    on_error: str = "raise"


@dataclasses.dataclass(frozen=True)
class LabelData(SplitSizes):
    """A file of labelled solutions, or a hub id, and its format (docs/formats.md)."""

    labels: FileName = ""
    format: str = "trl_stepwise"
    on_error: str = "raise"


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Problems with their gold, and sentences about what was left out."""

    problems: list[Problem]
    gold: list[Gold]
    notes: list[str]


def task_of(name: str) -> Task:
    """The task of `config.task`. Raises ValueError for a name that is none."""
    if name not in TASKS:
        raise ValueError(f"config.task={name!r} is unknown: choose among {', '.join(TASKS)}")
    if name in WORLDS:
        return WORLDS[name]
    made, _ = _DATA_SETS[name]
    return dataclasses.replace(made(), name=name)


def split_of(problem_id: str) -> str:
    """train, dev, test or held_out."""
    return problem_id.split("-", 1)[0]


def group_of(problem_id: str) -> str:
    """What comes before a problem's number: the split, and for held-out problems what makes them so."""
    return problem_id.rsplit("-", 1)[0]


def load(task: str, seed: int, data: ProblemData) -> Loaded:
    """All problems of a task, every split cut to its number."""
    return _generated(task, seed, data) if task in WORLDS else _read(task, seed, data)


def _sizes(data: ProblemData) -> dict[str, int | None]:
    return {"train": data.train_problems, "dev": data.dev_problems, "test": data.test_problems}


def _generated(task: str, seed: int, data: ProblemData) -> Loaded:
    world = world_of(task_of(task))
    seen: set[str] = set()
    pairs: list[tuple[Problem, Gold]] = []
    for split, size in _sizes(data).items():
        if size is None:
            raise ValueError(f"config.data.{split}_problems is not set: a world has no end, give a number")
        pairs += world.generate(seed, split, size, avoid=seen)
    for kind, distribution in world.held_out.items():
        pairs += world.generate(seed, f"{HELD_OUT}-{kind}", data.held_out_problems, distribution, seen)
    return Loaded([p for p, _ in pairs], [g for _, g in pairs], [])


def _read(task: str, seed: int, data: ProblemData) -> Loaded:
    malformed: list[str] = []
    train, test = (_read_split(task, data, split, malformed) for split in ("train", "test"))
    random.Random(f"split/{seed}").shuffle(train)
    dev = round(DEV_SHARE * len(train))
    found = {"train": train[dev:], "dev": train[:dev], "test": test}
    seen: set[str] = set()
    problems, gold, repeated = [], [], 0
    # Test first: a question that stands in two files stays where it is measured.
    for split in ("test", "dev", "train"):
        kept = []
        for problem, answer in found[split]:
            repeated += problem.question in seen
            if problem.question not in seen:
                seen.add(problem.question)
                kept.append((problem, answer))
        for problem, answer in kept[: _sizes(data)[split]]:
            name = f"{split}-{problem.id}"
            problems.append(dataclasses.replace(problem, id=name))
            gold.append(dataclasses.replace(answer, problem_id=name))
    notes = [f"{len(malformed)} malformed lines were skipped, the first: {malformed[0]}"] if malformed else []
    if repeated:
        notes.append(f"{repeated} problems repeat another one's text and were left out")
    return Loaded(problems, gold, notes)


def _read_split(task: str, data: ProblemData, split: str, malformed: list[str]) -> list[tuple[Problem, Gold]]:
    """A split of the data; nothing where there is no such split, or nobody asks for it."""
    if split == "train" and (task in competition.NAMES or data.train_problems == data.dev_problems == 0):
        return []
    _, load = _DATA_SETS[task]
    return list(load(data.path, split, data.on_error, malformed))


def read_labels(data: LabelData, seed: int) -> tuple[list[LabelledSolution], list[str]]:
    """The labelled solutions of a file, split into train and dev, and sentences about what was left out.

    A tenth of the problems is dev, by their texts: what repeats a problem stays in its split. Where the file does not
    know whether the answer is right, the last step's label says so.

    Raises:
      ValueError: no file is named, or two rows have the same id; StoreError as `files.read`.
    """
    if not data.labels:
        raise ValueError("config.data.labels is empty: name a file of labelled solutions, or a hub id")
    malformed: list[str] = []
    read = list(files.read(data.labels, data.format, on_error=data.on_error, malformed=malformed))
    if not any(isinstance(item, LabelledSolution) and set(item.labels) != {None} for item in read):
        raise ValueError(f"config.data.format={data.format!r} holds no step labels: choose another")
    texts = sorted({prompt(item.problem) for item in read})
    random.Random(f"split/{seed}").shuffle(texts)
    dev = set(texts[: round(DEV_SHARE * len(texts))])
    chosen = {
        "dev": {*[t for t in texts if t in dev][: data.dev_problems]},
        "train": {*[t for t in texts if t not in dev][: data.train_problems]},
    }
    found: dict[str, LabelledSolution] = {}
    for item in read:
        split = "dev" if prompt(item.problem) in dev else "train"
        if prompt(item.problem) not in chosen[split]:
            continue
        problem_id, solution_id = f"{split}-{item.problem.id}", f"{split}-{item.solution.id}"
        if solution_id in found:
            raise ValueError(f"{data.labels}: two solutions have the id {item.solution.id!r}: give each its own")
        outcome = item.judgement.outcome
        if outcome is None and item.labels:
            outcome = item.labels[-1]
        found[solution_id] = LabelledSolution(
            dataclasses.replace(item.problem, id=problem_id),
            dataclasses.replace(item.solution, id=solution_id, problem_id=problem_id),
            dataclasses.replace(item.judgement, solution_id=solution_id, judge="labels", outcome=outcome),
            item.gold and dataclasses.replace(item.gold, problem_id=problem_id),
        )
    notes = [f"{len(malformed)} malformed rows were skipped, the first: {malformed[0]}"] if malformed else []
    return list(found.values()), notes


def measured(count: int, problems: Sequence[Problem]) -> set[str]:
    """Ids of `count` test problems, and as many of the held-out ones in all."""
    chosen: set[str] = set()
    groups = {group_of(p.id) for p in problems if split_of(p.id) in ("test", HELD_OUT)}
    for group in sorted(groups):
        members = sorted(p.id for p in problems if group_of(p.id) == group)
        chosen |= set(members[: count if split_of(group) == "test" else max(1, count // len(groups - {"test"}))])
    return chosen


def controls(count: int, problems: Sequence[Problem]) -> dict[str, str]:
    """The first `count` test problems, each with another one, whose reference is wrong for it."""
    members = sorted(p.id for p in problems if split_of(p.id) == "test")
    chosen = members[:count]
    return (
        {problem_id: members[i + 1 - len(members)] for i, problem_id in enumerate(chosen)} if len(members) > 1 else {}
    )
