"""Judging of files: solutions that somebody else made, and any judge.

score      a file of solutions, one PRM      -> scores.jsonl (configs/score.py)
annotate   a file of solutions, any judge    -> records, judgements/<judge>, trl_stepwise.jsonl, report.html
           (configs/annotate.py)
benchmark  ProcessBench, PRMBench, any judge -> records, judgements/{<judge>,human}, metrics.json, of ProcessBench
           (configs/processbench.py, prmbench.py)  report.html too
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from spare_jax.evaluation.missing import in_words, why_not_judged
from spare_jax.evaluation.prm_score import prm_bench_metrics
from spare_jax.evaluation.process_bench import process_bench_metrics
from spare_jax.formats import files
from spare_jax.formats.fields import name_of, prompt
from spare_jax.judges.outcome import is_correct
from spare_jax.keys import FileName
from spare_jax.pipelines.prm import RECORDS, warn_of_refused
from spare_jax.records import Case, Judgement, LabelledSolution
from spare_jax.report import annotations
from spare_jax.report import process_bench as process_bench_page
from spare_jax.runs import ask
from spare_jax.runs.ask import EnsembleSettings, Judges
from spare_jax.runs.models import EngineSettings, WithPRM, load, max_length
from spare_jax.runs.run import Run
from spare_jax.runs.stage import Stage
from spare_jax.selection.aggregate import aggregate
from spare_jax.storage.jsonlines import write_lines
from spare_jax.tasks.task import Task

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SolutionData:
    """A file of solutions and its format (docs/formats.md); `split` is that of a directory or of a hub id. A malformed
    row is an error, or with `on_error` "skip" counted."""

    path: FileName = ""
    format: str = "plain"
    split: str = "train"
    on_error: str = "raise"


def score(run: Run, data: SolutionData, models: WithPRM, engine: EngineSettings) -> list[str]:
    """Score a file of solutions with a reward model, in the file's order."""
    for key, path in (("data.path", data.path), ("models.prm.path", models.prm.path)):
        if not path:
            raise ValueError(f"config.{key} is empty: name the file of solutions and the reward model's directory")
    found = _read(data)
    checkpoint = load(run, models.prm)
    how = ask.reader(run.task, checkpoint, models.prm.convention)
    judge = ask.scorer(run, checkpoint, engine, how, "score")
    judgements = ask.ask(run, "score", judge, [item.case for item in found])
    rows, exceeding = [], 0
    for item, judgement in zip(found, judgements, strict=True):
        of_steps = [step.score for step in judgement.steps]
        exceeding += bool(of_steps) and of_steps[-1] is None and not judgement.failure
        row = {"id": item.solution.id, "steps": item.solution.steps, "scores": of_steps}
        row |= {"solution_score": aggregate(of_steps, how.aggregation)}
        rows.append(row | ({"failure": judgement.failure} if judgement.failure else {}))
    if exceeding:
        logger.warning(
            "score: %d of %d solutions exceed the context of %d tokens: their last steps have no score",
            exceeding, len(found), max_length(checkpoint, engine),
        )  # fmt: skip
    write_lines(run.work.path / "scores.jsonl", rows)
    return ["scores.jsonl"]


def annotate(run: Run, data: SolutionData, judge: str, judges: Judges, ensemble: EnsembleSettings) -> list[str]:
    """Judge a file of solutions with the judge of the config; rows stay in the file's order."""
    found = _read_solutions(run.task, data)
    judgements, members = _ask(run, "annotate", [item.case for item in found], judge, judges, ensemble)
    labels = [ask.labels_of(judgement, judges.threshold) for judgement in judgements]
    if unlabelled := sum(None in several for several in labels):
        logger.warning(
            "annotate: %d of %d solutions have a step without a label: trl_stepwise.jsonl cannot say so and lacks them",
            unlabelled, len(labels),
        )  # fmt: skip
    judged = [dataclasses.replace(item, judgement=j) for item, j in zip(found, judgements, strict=True)]
    _write_records(run, judged)
    run.work.write(f"judgements/{judge}", judgements, as_given=True)
    rows = (
        {"id": item.solution.id, "prompt": prompt(item.problem), "completions": item.solution.steps, "labels": several}
        for item, several in zip(judged, labels, strict=True)
        if None not in several
    )
    write_lines(run.work.path / "trl_stepwise.jsonl", rows)
    html = annotations.render(judged, judge, labels, data.path)
    (run.work.path / "report.html").write_text(html, encoding="utf-8")
    return [*RECORDS, f"judgements/{judge}.jsonl", *members, "trl_stepwise.jsonl", "report.html"]


def _ask(
    run: Run, stage: str, cases: Sequence[Case], judge: str, judges: Judges, ensemble: EnsembleSettings
) -> tuple[list[Judgement], list[str]]:
    """What a judge says. What the members of an ensemble say is written; the names of that."""
    if judge != "ensemble":
        return ask.ask(run, stage, ask.ready(run, judge, judges), cases), []
    said = ask.ask_ensemble(run, stage, cases, judges, ensemble)
    for member, judgements in said.members.items():
        run.work.write(f"judgements/{member}", judgements)
    written = [f"judgements/{member}.jsonl" for member in said.members]
    if said.learned is None:
        return said.judgements, written
    run.work.write_json("ensemble.json", said.learned)
    return said.judgements, [*written, "ensemble.json"]


def benchmark(run: Run, data: SolutionData, judge: str, judges: Judges, ensemble: EnsembleSettings) -> list[str]:
    """Judge the solutions of a benchmark and measure the judge against its labels."""
    if data.format not in _MEASURES:
        raise ValueError(f"config.data.format={data.format!r}: choose among {', '.join(_MEASURES)}")
    found = _read_solutions(run.task, data)
    # What the judge says itself: the last step's label is not overwritten by what only the accepted answer tells.
    annotate = dataclasses.replace(judges.annotate, last_step_is_outcome=False)
    judges = dataclasses.replace(judges, annotate=annotate)
    judgements, members = _ask(run, "benchmark", [item.case for item in found], judge, judges, ensemble)
    _write_records(run, found)
    run.work.write(f"judgements/{judge}", judgements)
    run.work.write("judgements/human", (item.judgement for item in found))
    metrics, pages = _MEASURES[data.format](run, Judged(judge, data.path, judges.threshold, found, judgements))
    run.work.write_json("metrics.json", {"judge": judge, **metrics})
    warn_of_refused(metrics)
    return [*RECORDS, f"judgements/{judge}.jsonl", *members, "judgements/human.jsonl", "metrics.json", *pages]


@dataclasses.dataclass(frozen=True)
class Judged:
    """A judge's word on a benchmark: its name, the file, from where on a score is right, the rows, and the word."""

    judge: str
    path: str
    threshold: float
    found: Sequence[LabelledSolution]
    judgements: Sequence[Judgement]


_Measured = tuple[dict[str, Any], list[str]]  # metrics, and the pages that show them


def _process_bench(run: Run, judged: Judged) -> _Measured:
    found, judgements = judged.found, judged.judgements
    right = [
        is_correct(run.task, item.gold, item.solution) if item.gold and item.gold.answers else None for item in found
    ]
    metrics = process_bench_metrics(found, judgements, right, run.seed)
    cut = judged.threshold if metrics["threshold"] is None else metrics["threshold"]
    labels = [ask.labels_of(judgement, cut) for judgement in judgements]
    html = process_bench_page.render(metrics, judged.judge, found, judgements, labels, judged.path)
    (run.work.path / "report.html").write_text(html, encoding="utf-8")
    judge = metrics["test"]["judge"]
    _tell("first-error F1", judge["f1"], judge["n_error"] + judge["n_correct"], "rows", judge["missing"])
    return metrics, ["report.html"]


def _prm_bench(run: Run, judged: Judged) -> _Measured:
    found, judgements = judged.found, judged.judgements
    said = [
        ask.labels_of(judgement, judged.threshold) or (None,) * len(item.labels)  # it looks at no step
        for item, judgement in zip(found, judgements, strict=True)
    ]
    why = [why_not_judged(judgement) for judgement in judgements]
    metrics = prm_bench_metrics([i.labels for i in found], said, [name_of(i) for i in found], run.seed, why)
    judge = metrics["judge"]
    _tell("PRMScore", judge["prm_score"], judge["n"], "steps", judge["missing"])
    return {"threshold": judged.threshold, **metrics}, []


def _tell(name: str, value: float | None, n: int, what: str, missing: Mapping[str, int]) -> None:
    """A figure in a line of the log, the number that it is over, and what is missing."""
    absent = f"; {sum(missing.values())} are missing ({in_words(missing)})" if missing else ""
    logger.info("%s %s on %d %s%s", name, "-" if value is None else f"{value:.3f}", n, what, absent)


_MEASURES = {"processbench": _process_bench, "prmbench": _prm_bench}


def _read_solutions(task: Task, data: SolutionData) -> list[LabelledSolution]:
    """The solutions of the file, with the answers that they and their references state."""
    if not data.path:
        raise ValueError("config.data.path is empty: name the file of solutions")
    found = [ask.with_answers(task, item) for item in _read(data)]
    ids: set[str] = set()
    for item in found:
        if item.solution.id in ids:
            raise ValueError(f"{data.path}: two rows have the id {item.solution.id!r}: give each its own")
        ids.add(item.solution.id)
    return found


def _read(data: SolutionData) -> list[LabelledSolution]:
    malformed: list[str] = []
    read = files.read(data.path, data.format, split=data.split, on_error=data.on_error, malformed=malformed)
    found = list(read)
    if malformed:
        logger.warning("%d malformed rows were skipped, the first: %s", len(malformed), malformed[0])
    return found


def _write_records(run: Run, found: Sequence[LabelledSolution]) -> None:
    run.work.write("problems", {item.problem.id: item.problem for item in found}.values())
    run.work.write("gold", {item.problem.id: item.gold for item in found if item.gold}.values())
    run.work.write("solutions", (item.solution for item in found))


STAGES = {"score": Stage(score), "annotate": Stage(annotate), "benchmark": Stage(benchmark)}
