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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from spare_jax.evaluation import summary
from spare_jax.evaluation.accuracy import macro_f1
from spare_jax.evaluation.statistics import mean_or_none
from spare_jax.formats import files
from spare_jax.judges import conventions
from spare_jax.judges.conventions import ProgramReader, Reader
from spare_jax.judges.outcome import outcome
from spare_jax.judges.truth import truth
from spare_jax.models import huggingface
from spare_jax.models.huggingface import Checkpoint
from spare_jax.prompts.solve import orm_ids, prm_ids, solution_ids
from spare_jax.records import Case, Gold, LabelledSolution, Problem, Solution
from spare_jax.report import examples, page
from spare_jax.runs import ask, fit, models, solving, splits
from spare_jax.runs.run import Run
from spare_jax.runs.stage import Stage
from spare_jax.targets.labels import check_pool, reference_solution, training_examples
from spare_jax.training import batches, losses

logger = logging.getLogger(__name__)

TARGETS = ("labels", "scores")


# solve, load_problems


def solve(run: Run) -> list[str]:
    """Load or generate the problems; sample solutions of all of them."""
    loaded = problems_of(run)
    solving.solve(run, "solve", models.load_to_ask(run, "generator"), loaded.problems, run.config.solve)
    return [*RECORDS]


def load_problems(run: Run) -> list[str]:
    """Load or generate the problems, and lay their gold aside."""
    problems_of(run)
    return ["problems.jsonl", "gold.jsonl"]


def problems_of(run: Run) -> splits.Loaded:
    """The problems of the run and their gold, as they were loaded or generated; both are written down."""
    loaded = splits.load(run.config)
    for line in loaded.notes:
        logger.warning(line)
    run.work.write("problems", loaded.problems)
    run.work.write("gold", loaded.gold)
    return loaded


# judge


def judge(run: Run) -> list[str]:
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

    written += _annotate(run, found, by_id, gold, solutions)
    labelled = _labelled(run, "spare", "train", by_id, gold, solutions)
    if left_out := files.write(run.work.path / "trl_stepwise.jsonl", "trl_stepwise", labelled):
        logger.warning("judge: %d solutions with a step without label are not in trl_stepwise.jsonl", left_out)
    return [*written, "trl_stepwise.jsonl"]


def _annotate(
    run: Run,
    problems: Sequence[Problem],
    by_id: Mapping[str, Problem],
    gold: Mapping[str, Gold],
    solutions: Sequence[Solution],
) -> list[str]:
    """SPARE's word on the solutions that train, choose and measure; and of the controls, which are shown no reference,
    another problem's, and the reference as the solution."""
    measured, controls = splits.measured(run.config, problems), splits.controls(run.config, problems)
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
    judged = iter(ask.ask(run, "judge", "spare", asked))
    by_name = {
        name: [dataclasses.replace(next(judged), judge=name) for _ in several] for name, several in cases.items()
    }
    for name, judgements in by_name.items():
        run.work.write(f"judgements/{name}", judgements)
    if dropped := sum(j.exemplars_dropped for judgements in by_name.values() for j in judgements):
        logger.warning("judge: %d exemplars were dropped so that prompts fit the context", dropped)
    return [f"judgements/{name}.jsonl" for name in by_name]


def _labelled(run: Run, judge: str, split: str, by_id, gold, solutions) -> Iterator[LabelledSolution]:
    """The solutions of a split with a judge's labels, without those that it failed to judge; the reference joins them
    in training alone."""
    policy = ask.label_policy(run.config)
    if split != "train":
        policy = dataclasses.replace(policy, reference_as_sample=False)
    pool = [s for s in solutions if splits.split_of(s.problem_id) == split and s.steps]
    yield from training_examples(run.task, by_id, pool, run.judgements(judge), gold, policy)


# labels


def labels(run: Run) -> list[str]:
    """Read labels that somebody else made, in the place of solve and judge."""
    found, notes = splits.read_labels(run.config)
    for line in notes:
        logger.warning(line)
    problems = {item.problem.id: item.problem for item in found}
    run.work.write("problems", problems.values())
    run.work.write("gold", {item.problem.id: item.gold for item in found if item.gold}.values())
    run.work.write("solutions", (item.solution for item in found))
    run.work.write("judgements/labels", (item.judgement for item in found))
    return [*RECORDS, "judgements/labels.jsonl"]


# train_prm


def train_prm(run: Run) -> list[str]:
    """Train the process and the outcome reward model from the same weights, and export both.

    Nothing is trained where the config names an existing PRM.
    """
    if run.config.prm.path:
        return []
    _, by_id, gold, solutions = run.records()
    if not run.work.file(f"judgements/{run.config.prm.labels}").exists():
        raise ValueError(
            f"config.prm.labels={run.config.prm.labels!r}: {run.work.file(f'judgements/{run.config.prm.labels}')} is "
            "missing: run the stage that writes it first, or name another judge"
        )
    start = models.load_to_train(run, "prm", run.config.prm.lora, run.config.prm.train.dtype)
    labelled = {
        split: list(_labelled(run, run.config.prm.labels, split, by_id, gold, solutions)) for split in ("train", "dev")
    }
    written = []
    for kind in ("prm", "orm"):
        written += train_reward_model(run, "train_prm", start, kind, kind, labelled)
    return written


def train_reward_model(
    run: Run,
    stage: str,
    start: Checkpoint,
    kind: str,
    directory: str,
    labelled: Mapping[str, Sequence[LabelledSolution]],
) -> list[str]:
    """Train one reward model from `start` by `config.prm`, and export it; returns the directories it wrote.

    Args:
      stage: whose figures the training's are.
      kind: "prm" learns the label (by `config.prm.targets` the soft one) of every step, "orm" the outcome.
      directory: of the work directory, for checkpoints/, export/ and, with adapters, adapter/.
      labelled: {"train": ..., "dev": ...}; of each, where `config.prm.balanced`, as many solutions with a right answer
        as with a wrong one are used.

    Raises:
      ValueError: there is no label to learn from, or `config.prm.targets` is unknown.
    """
    how = run.config.prm
    convention = conventions.choose_convention(start.tokenizer, how.step_tags, how.aggregation)
    sets = training_sets(run, stage, start, kind, labelled, convention.tag_id)
    loss = losses.TokenTagLoss(convention.good_id, convention.bad_id)
    train_rows, dev_rows = (batches.pack(sets[split], how.train.row_length) for split in ("train", "dev"))
    if not train_rows.rows:
        raise ValueError(
            f"{stage}: none of {len(labelled['train'])} train solutions has a label that the {kind.upper()} could "
            f"learn in rows of {how.train.row_length} tokens: judge them again, sample more, or give longer rows"
        )
    checkpoints, config = run.work.path / directory / "checkpoints", fit.train_config(run, how.train)
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
    written = models.export(run, directory, result.model, start)
    for path in written:
        conventions.save_convention(run.work.path / path, convention)
    return written


def training_sets(
    run: Run,
    stage: str,
    start: Checkpoint,
    kind: str,
    labelled: Mapping[str, Sequence[LabelledSolution]],
    tag_id: int,
) -> dict[str, list[batches.Example]]:
    """What a reward model is trained and chosen on: the texts of `labelled` (as in `train_reward_model`) with a tag
    behind each step, and what it should say there.

    Raises:
      ValueError: `config.prm.targets` is unknown.
    """
    how = run.config.prm
    digest = huggingface.tokenizer_digest(start.tokenizer)
    if how.targets not in TARGETS:
        raise ValueError(f"config.prm.targets={how.targets!r} is unknown: choose among {', '.join(TARGETS)}")

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
            items, warning = batches.outcome_balanced(items, outcomes, run.config.seed, limit)
            if warning:
                logger.warning("%s, %s split: %s", stage, split, warning)
        sets[split] = [example(item) for item in items]
    return sets


# rank


def rank(run: Run) -> list[str]:
    """Score the solutions of dev, test and held-out problems with every reward model there is."""
    _, by_id, _, solutions = run.records()
    ranked = [s for s in solutions if splits.split_of(s.problem_id) != "train"]
    check_pool(ranked)
    written = []
    for name, (checkpoint, reader) in _reward_models(run).items():
        cases = {f"{name}/{s.id}": Case(by_id[s.problem_id], s) for s in ranked}
        run.work.write(f"judgements/{name}", ask.ask(run, "rank", ask.scorer(run, checkpoint, reader, name), cases))
        written.append(f"judgements/{name}.jsonl")
    return written


def _reward_models(run: Run) -> dict[str, tuple[Checkpoint, Reader | ProgramReader]]:
    """The rankers by name: an existing PRM alone, or those of this run and the PRM's weights before training."""
    if run.config.prm.path:
        existing = huggingface.load(run.config.prm.path, mesh=run.inference_mesh)
        return {"prm": (existing, ask.reader(run, existing, run.config.models.prm.convention))}
    rankers = {}
    for kind in ("prm", "orm"):
        trained = huggingface.load(run.work.path / kind / "export", mesh=run.inference_mesh)
        rankers[kind] = (trained, ask.reader(run, trained, whole=kind == "orm"))
    rankers["prm_at_init"] = (models.load(run, "prm"), rankers["prm"][1])
    return rankers


def warn_of_refused(metrics: Mapping[str, Any]) -> None:
    """Say which of the figures that may be quoted alone are refused, and why."""
    for path, why in metrics.get("reasons", {}).items():
        if path.startswith("headline."):
            logger.warning("%s: %s", path.removeprefix("headline."), why)


# evaluate, report


def evaluate(run: Run) -> list[str]:
    """All metrics, from the records alone."""
    found, _, gold, solutions = run.records()
    metrics = summary.metrics(
        found,
        solutions,
        {name: run.judgements(name) for name in summary.JUDGES},
        ask.label_policy(run.config),
        seed=run.config.seed,
        n_samples=run.config.solve.samples,
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


def report(run: Run) -> list[str]:
    """One page of figures, costs and judged solutions."""
    found, by_id, gold, solutions = run.records()
    shown = examples.choose(
        by_id, gold, solutions, {name: run.judgements(name) for name in summary.JUDGES}, run.config.prm.aggregation
    )
    runs = [{"stage": stage, **measured} for stage, measured in (*run.work.measured(), *run.measured.items())]
    meta = {
        "task": run.config.task,
        "generated": run.task.world is not None,
        "trained": not run.config.prm.path,
        "device": jax.devices()[0].device_kind,
        "models": {
            "generator": run.config.models.generator.path,
            "judge": run.config.models.judge.path or run.config.models.generator.path,
            "prm": run.config.prm.path,
        },
        "counts": summary.counts(found, solutions, {p.id: splits.group_of(p.id) for p in found}),
        "runs": runs,
    }
    html = page.render(run.work.read_json("metrics.json"), shown, meta)
    (run.work.path / "report.html").write_text(html, encoding="utf-8")
    return ["report.html"]


RECORDS = ("problems.jsonl", "gold.jsonl", "solutions.jsonl")


STAGES = {
    "solve": Stage(solve, ("seed", "task", "data", "models.generator", "prm.path", "engine", "mesh", "solve")),
    "judge": Stage(judge, ("seed", "task", "models", "engine", "mesh", "annotate"), RECORDS),
    "labels": Stage(labels, ("seed", "task", "data", "prm.path"), given=("data.labels",)),
    "train_prm": Stage(
        train_prm,
        ("seed", "task", "models", "mesh", "prm", "annotate"),
        RECORDS,
        reads=("judgements/spare.jsonl", "judgements/labels.jsonl"),
    ),
    "rank": Stage(
        rank, ("seed", "task", "models", "prm.path", "engine", "mesh"), RECORDS, reads=("prm/export", "orm/export")
    ),
    "load_problems": Stage(load_problems, ("seed", "task", "data")),
    "evaluate": Stage(evaluate, needs=(*RECORDS, "judgements/outcome.jsonl"), derived=True),
    "report": Stage(report, needs=(*RECORDS, "metrics.json"), derived=True),
}
