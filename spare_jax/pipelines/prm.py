"""The main job: what each stage reads and writes.

solve      problems.jsonl, gold.jsonl        -> solutions.jsonl
load_problems                                -> the first two alone, for pipelines that go on otherwise
judge      + gold                            -> judgements/{outcome,truth,spare,...}.jsonl, trl_stepwise.jsonl
labels     a file of labelled solutions      -> the same records, judgements/labels.jsonl (configs/prm_labels.py)
train_prm  train and dev labels              -> prm/export, orm/export, with LoRA prm/adapter, orm/adapter
rank       reward models, test solutions     -> judgements/{prm,orm,prm_at_init}.jsonl
evaluate   all records                       -> metrics.json
report     metrics and some records          -> report.html
"""

import dataclasses
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jax

from spare_jax.evaluation import summary
from spare_jax.evaluation.accuracy import macro_f1
from spare_jax.evaluation.statistics import mean_or_none
from spare_jax.formats import files
from spare_jax.judges import conventions
from spare_jax.judges.conventions import Reader
from spare_jax.judges.outcome import outcome
from spare_jax.judges.spare import SpareSettings
from spare_jax.judges.truth import truth
from spare_jax.keys import FileName
from spare_jax.models import huggingface
from spare_jax.models.adapters import AdapterConfig
from spare_jax.models.huggingface import Checkpoint
from spare_jax.prompts.solve import orm_ids, prm_ids, solution_ids
from spare_jax.records import Case, LabelledSolution, Solution
from spare_jax.report import examples, page
from spare_jax.runs import ask, fit, solving, splits
from spare_jax.runs.models import (
    EngineSettings,
    Generator,
    WithJudge,
    WithPRM,
    export,
    load,
    load_to_ask,
    load_to_train,
)
from spare_jax.runs.run import Run
from spare_jax.runs.splits import LabelData, ProblemData
from spare_jax.runs.stage import Stage
from spare_jax.solvers.sample import SolveSettings
from spare_jax.targets.labels import LabelPolicy, check_pool, reference_solution, training_examples
from spare_jax.training import batches, losses
from spare_jax.training.setup import TrainConfig

logger = logging.getLogger(__name__)

TARGETS = ("labels", "scores")


# solve, load_problems


@dataclasses.dataclass(frozen=True)
class Ranker:
    """The PRM that ranks: an existing one at `path`, and then nothing is trained, or the one that this run trains.
    `aggregation` makes a solution's score of its steps' scores: last, min, product or mean."""

    path: FileName = ""
    aggregation: str = "last"


def solve(
    run: Run, data: ProblemData, prm: Ranker, models: Generator, engine: EngineSettings, solve: SolveSettings
) -> list[str]:
    """Load or generate the problems; sample solutions of all of them. With an existing PRM nothing is trained, so no
    problem is solved for it."""
    loaded = problems_of(run, dataclasses.replace(data, train_problems=0) if prm.path else data)
    solving.solve(run, "solve", load_to_ask(run, models.generator), loaded.problems, engine, solve)
    return [*RECORDS]


def load_problems(run: Run, data: ProblemData) -> list[str]:
    """Load or generate the problems, and lay their gold aside."""
    problems_of(run, data)
    return ["problems.jsonl", "gold.jsonl"]


def problems_of(run: Run, data: ProblemData) -> splits.Loaded:
    """The problems of the run and their gold, as they were loaded or generated; both are written down."""
    loaded = splits.load(run.task.name, run.seed, data)
    for line in loaded.notes:
        logger.warning(line)
    run.work.write("problems", loaded.problems)
    run.work.write("gold", loaded.gold)
    return loaded


# judge


@dataclasses.dataclass(frozen=True)
class Annotate(SpareSettings):
    """How the annotator is asked, and beside all solutions of train and dev problems about those of how many others: it
    is measured on `measured_problems` of the test split and as many held-out ones, and its controls have
    `control_problems` of the former."""

    measured_problems: int = 0
    control_problems: int = 0


def judge(run: Run, models: WithJudge, engine: EngineSettings, annotate: Annotate) -> list[str]:
    """Outcomes and truth of all solutions; SPARE's annotation of those that train, choose and measure."""
    found, by_id, gold, solutions = run.records()
    outcomes = [outcome(run.task, gold[s.problem_id], s) for s in solutions]
    if undecided := sum(bool(said.failure) for said in outcomes):
        logger.warning("judge: %d of %d answers could not be compared: they have no outcome", undecided, len(outcomes))
    run.work.write("judgements/outcome", outcomes)
    written = ["judgements/outcome.jsonl"]
    if run.task.world:
        known = (truth(run.task, by_id[s.problem_id], gold[s.problem_id], s) for s in solutions)
        run.work.write("judgements/truth", known)
        written.append("judgements/truth.jsonl")

    measured = splits.measured(annotate.measured_problems, found)
    controls = splits.controls(min(annotate.measured_problems, annotate.control_problems), found)
    written += _annotate(run, ask.annotator(run, models, engine, annotate), measured, controls)
    labelled = _labelled(run, annotate, "spare", "train")
    if left_out := files.write(run.work.path / "trl_stepwise.jsonl", "trl_stepwise", labelled):
        logger.warning("judge: %d solutions with a step without label are not in trl_stepwise.jsonl", left_out)
    return [*written, "trl_stepwise.jsonl"]


def _annotate(run: Run, spare: ask.Judge, measured: Collection[str], controls: Mapping[str, str]) -> list[str]:
    """SPARE's word on the solutions that train, choose and measure; and of the controls, which are shown no reference,
    another problem's, and the reference as the solution.

    Args:
      measured, controls: as `splits.measured` and `splits.controls` choose problems.
    """
    _, by_id, gold, solutions = run.records()
    annotated = [s for s in solutions if splits.split_of(s.problem_id) in ("train", "dev") or s.problem_id in measured]
    controlled = [s for s in solutions if s.problem_id in controls]
    references = [reference_solution(run.task, gold[i]) for i in controls if gold[i].steps]

    def case(solution: Solution, shown: Sequence[str]) -> Case:
        known = dataclasses.replace(gold[solution.problem_id], steps=tuple(shown))
        return Case(by_id[solution.problem_id], solution, known)

    cases = {
        "spare": [case(s, gold[s.problem_id].steps) for s in annotated],
        "spare_no_reference": [case(s, ()) for s in controlled],
        "spare_wrong_reference": [case(s, gold[controls[s.problem_id]].steps) for s in controlled],
        "spare_on_reference": [case(s, gold[s.problem_id].steps) for s in references],
    }
    asked = {f"{name}/{of.solution.id}": of for name, several in cases.items() for of in several}
    judged = iter(ask.ask(run, "judge", spare, asked))
    by_name = {
        name: [dataclasses.replace(next(judged), judge=name) for _ in several] for name, several in cases.items()
    }
    for name, judgements in by_name.items():
        run.work.write(f"judgements/{name}", judgements)
    if dropped := sum(j.exemplars_dropped for judgements in by_name.values() for j in judgements):
        logger.warning("judge: %d exemplars were dropped so that prompts fit the context", dropped)
    return [f"judgements/{name}.jsonl" for name in by_name]


def _labelled(run: Run, policy: LabelPolicy, judge: str, split: str) -> Iterator[LabelledSolution]:
    """The solutions of a split with a judge's labels, without those that it failed to judge; the reference joins them
    in training alone."""
    _, by_id, gold, solutions = run.records()
    if split != "train":
        policy = dataclasses.replace(policy, reference_as_sample=False)
    pool = [s for s in solutions if splits.split_of(s.problem_id) == split and s.steps]
    yield from training_examples(run.task, by_id, pool, run.judgements(judge), gold, policy)


# labels


def labels(run: Run, data: LabelData) -> list[str]:
    """Read labels that somebody else made, in the place of solve and judge."""
    found, notes = splits.read_labels(data, run.seed)
    for line in notes:
        logger.warning(line)
    problems = {item.problem.id: item.problem for item in found}
    run.work.write("problems", problems.values())
    run.work.write("gold", {item.problem.id: item.gold for item in found if item.gold}.values())
    run.work.write("solutions", (item.solution for item in found))
    run.work.write("judgements/labels", (item.judgement for item in found))
    return [*RECORDS, "judgements/labels.jsonl"]


# train_prm


@dataclasses.dataclass(frozen=True)
class RewardModelTraining(Ranker):
    """How a PRM, and an ORM beside it, are trained (arXiv 2506.15498, section 4).

    `labels` names whose labels train, a file of judgements/; `targets` is what the PRM learns of a step: the judge's
    "labels", or its "scores" where it has them. Where " ки" is not one token, the first of `step_tags` that is stands
    behind the steps. `balanced`: as many solutions with a right answer as with a wrong one, at most `balanced_limit` of
    each.
    """

    labels: str = "spare"
    targets: str = "labels"
    step_tags: tuple[str, ...] = ("<extra_0>",)
    balanced: bool = True
    balanced_limit: int = 20_000
    lora: AdapterConfig = AdapterConfig()
    train: TrainConfig = TrainConfig()

    def __post_init__(self):
        if self.targets not in TARGETS:
            raise ValueError(f"config.prm.targets={self.targets!r} is unknown: choose among {', '.join(TARGETS)}")


def train_prm(run: Run, models: WithPRM, annotate: LabelPolicy, prm: RewardModelTraining) -> list[str]:
    """Train the process and the outcome reward model from the same weights, and export both.

    Nothing is trained where the config names an existing PRM.
    """
    if prm.path:
        return []
    if not run.work.file(f"judgements/{prm.labels}").exists():
        raise ValueError(
            f"config.prm.labels={prm.labels!r}: {run.work.file(f'judgements/{prm.labels}')} is missing: run the stage "
            "that writes it first, or name another judge"
        )
    start = load_to_train(run, models.prm, models.generator, lora=prm.lora, dtype=prm.train.dtype)
    labelled = {split: list(_labelled(run, annotate, prm.labels, split)) for split in ("train", "dev")}
    written = []
    for kind in ("prm", "orm"):
        written += train_reward_model(run, "train_prm", start, prm, kind, kind, labelled)
    return written


def train_reward_model(
    run: Run,
    stage: str,
    start: Checkpoint,
    how: RewardModelTraining,
    kind: str,
    directory: str,
    labelled: Mapping[str, Sequence[LabelledSolution]],
) -> list[str]:
    """Train one reward model from `start`, and export it; returns the directories it wrote.

    Args:
      stage: whose figures the training's are.
      kind: "prm" learns the label (by `how.targets` the soft one) of every step, "orm" the outcome.
      directory: of the work directory, for checkpoints/, export/ and, with adapters, adapter/.
      labelled: {"train": ..., "dev": ...}; of each, where `how.balanced`, as many solutions with a right answer as with
        a wrong one are used.

    Raises:
      ValueError: there is no label to learn from.
    """
    convention = conventions.choose_convention(start.tokenizer, how.step_tags, how.aggregation)
    sets = training_sets(run, stage, start, how, kind, labelled, convention.tag_id)
    loss = losses.TokenTagLoss(convention.good_id, convention.bad_id)
    train_rows, dev_rows = (batches.pack(sets[split], how.train.row_length) for split in ("train", "dev"))
    if not train_rows.rows:
        raise ValueError(
            f"{stage}: none of {len(labelled['train'])} train solutions has a label that the {kind.upper()} could "
            f"learn in rows of {how.train.row_length} tokens: judge them again, sample more, or give longer rows"
        )
    checkpoints, config = run.work.path / directory / "checkpoints", dataclasses.replace(how.train, seed=run.seed)
    result = fit.train(run, f"{stage} {directory}", checkpoints, config, start.model, loss, train_rows, dev_rows)
    fit.write_training(run, directory, result, {"kind": kind})
    run.measured.setdefault(stage, {}).update(
        {
            f"{directory}_steps": result.steps,
            f"{directory}_best_step": result.best_step,
            f"{directory}_tags": result.train_counts.tags,
            f"{directory}_tokens_per_second": result.tokens_per_second or 0.0,
        }
    )
    written = export(run, directory, result.model, start)
    for path in written:
        conventions.save_convention(run.work.path / path, convention)
    return written


def training_sets(
    run: Run,
    stage: str,
    start: Checkpoint,
    how: RewardModelTraining,
    kind: str,
    labelled: Mapping[str, Sequence[LabelledSolution]],
    tag_id: int,
) -> dict[str, list[batches.Example]]:
    """What a reward model is trained and chosen on: the texts of `labelled` (as in `train_reward_model`) with a tag
    behind each step, and what it should say there."""
    digest = huggingface.tokenizer_digest(start.tokenizer)

    def example(item: LabelledSolution) -> batches.Example:
        steps = solution_ids(start.tokenizer, item.solution, digest)
        if kind == "orm":
            ids, tags = orm_ids(start.tokenizer, run.task, item.problem, steps, tag_id)
            return batches.Example(ids, tags=tags, labels=(item.judgement.outcome,))
        ids, tags = prm_ids(start.tokenizer, run.task, item.problem, steps, tag_id)
        return batches.Example(ids, tags=tags, labels=item.labels if how.targets == "labels" else item.soft_labels)

    sets = {}
    for split, items in labelled.items():
        if how.balanced:
            limit = how.balanced_limit if split == "train" else how.balanced_limit // 40
            items = [item for item in items if item.judgement.outcome is not None]
            outcomes = [item.judgement.outcome is True for item in items]
            items, warning = batches.outcome_balanced(items, outcomes, run.seed, limit)
            if warning:
                logger.warning("%s, %s split: %s", stage, split, warning)
        sets[split] = [example(item) for item in items]
    return sets


# rank


def rank(run: Run, models: WithPRM, engine: EngineSettings, prm: Ranker) -> list[str]:
    """Score the solutions of dev, test and held-out problems with every reward model there is."""
    _, by_id, _, solutions = run.records()
    ranked = [s for s in solutions if splits.split_of(s.problem_id) != "train"]
    check_pool(ranked)
    written = []
    for name, (checkpoint, reader) in _reward_models(run, models, prm).items():
        cases = {f"{name}/{s.id}": Case(by_id[s.problem_id], s) for s in ranked}
        judge = ask.scorer(run, checkpoint, engine, reader, name)
        run.work.write(f"judgements/{name}", ask.ask(run, "rank", judge, cases))
        written.append(f"judgements/{name}.jsonl")
    return written


def _reward_models(run: Run, models: WithPRM, prm: Ranker) -> dict[str, tuple[Checkpoint, Reader]]:
    """The rankers by name: an existing PRM alone, or those of this run and the PRM's weights before training."""
    if prm.path:
        existing = huggingface.load(prm.path, mesh=run.inference_mesh)
        return {"prm": (existing, ask.reader(run.task, existing, models.prm.convention))}
    rankers = {}
    for kind in ("prm", "orm"):
        trained = huggingface.load(run.work.path / kind / "export", mesh=run.inference_mesh)
        rankers[kind] = (trained, ask.reader(run.task, trained, whole=kind == "orm"))
    rankers["prm_at_init"] = (load(run, models.prm, models.generator), rankers["prm"][1])
    return rankers


def warn_of_refused(metrics: Mapping[str, Any]) -> None:
    """Say which of the figures that may be quoted alone are refused, and why."""
    for path, why in metrics.get("reasons", {}).items():
        if path.startswith("headline."):
            logger.warning("%s: %s", path.removeprefix("headline."), why)


# evaluate, report


def evaluate(run: Run, solve: SolveSettings, annotate: LabelPolicy) -> list[str]:
    """All metrics, from the records alone."""
    found, _, gold, solutions = run.records()
    metrics = summary.metrics(
        found,
        solutions,
        {name: run.judgements(name) for name in summary.JUDGES},
        annotate,
        seed=run.seed,
        n_samples=solve.samples,
        groups={p.id: splits.group_of(p.id) for p in found},
        equal=run.task.answers_equal,
    )
    tested = [s for s in solutions if splits.split_of(s.problem_id) == "test"]
    if run.task.credit:
        metrics["policy"]["credit"] = mean_or_none(
            [run.task.credit(s.answer, gold[s.problem_id].answers) for s in tested]
        )
    if run.task.classes:
        said = [run.task.classes(s.answer) for s in tested]
        metrics["policy"]["macro_f1"] = macro_f1(
            said, [run.task.classes(gold[s.problem_id].answers[0]) for s in tested]
        )
    run.work.write_json("metrics.json", metrics)
    warn_of_refused(metrics)
    return ["metrics.json"]


def report(run: Run, models: WithJudge, prm: Ranker) -> list[str]:
    """One page of figures, costs and judged solutions."""
    found, by_id, gold, solutions = run.records()
    shown = examples.choose(
        by_id, gold, solutions, {name: run.judgements(name) for name in summary.JUDGES}, prm.aggregation
    )
    runs = [{"stage": stage, **measured} for stage, measured in (*run.work.measured(), *run.measured.items())]
    meta = {
        "task": run.task.name,
        "generated": run.task.world is not None,
        "trained": not prm.path,
        "device": jax.devices()[0].device_kind,
        "models": {
            "generator": models.generator.path,
            "judge": models.judge.path or models.generator.path,
            "prm": prm.path,
        },
        "counts": summary.counts(found, solutions, {p.id: splits.group_of(p.id) for p in found}),
        "runs": runs,
    }
    html = page.render(run.work.read_json("metrics.json"), shown, meta)
    (run.work.path / "report.html").write_text(html, encoding="utf-8")
    return ["report.html"]


RECORDS = ("problems.jsonl", "gold.jsonl", "solutions.jsonl")


STAGES = {
    "solve": Stage(solve),
    "judge": Stage(judge, RECORDS),
    "labels": Stage(labels),
    "train_prm": Stage(train_prm, RECORDS, reads=("judgements/{prm[labels]}.jsonl",)),
    "rank": Stage(rank, RECORDS, reads=("prm/export", "orm/export")),
    "load_problems": Stage(load_problems),
    "evaluate": Stage(evaluate, needs=(*RECORDS, "judgements/outcome.jsonl"), derived=True),
    "report": Stage(report, needs=(*RECORDS, "metrics.json"), derived=True),
}

PIPELINE = {name: STAGES[name] for name in ("solve", "judge", "train_prm", "rank", "evaluate", "report")}
FROM_LABELS = {name: STAGES[name] for name in ("labels", "train_prm")}
