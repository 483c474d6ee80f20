"""The pipeline: what each stage reads and writes. The only file that knows all of it.

solve      problems.jsonl, gold.jsonl        -> solutions.jsonl
judge      + gold                            -> judgements/{outcome,truth,spare,...}.jsonl, trl_stepwise.jsonl
train_prm  train and dev labels              -> prm/export, orm/export
rank       reward models, test solutions     -> judgements/{prm,orm,prm_at_init}.jsonl
evaluate   all records                       -> metrics.json
report     metrics and some records          -> report.html
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator

import jax

from spare_jax import programs, splits
from spare_jax.evaluation import summary
from spare_jax.formats import files
from spare_jax.judges.labels import LabelPolicy, check_pool, training_examples
from spare_jax.judges.outcome import outcome
from spare_jax.judges.reward_model import RewardModelSettings, outcome_score, process_scores
from spare_jax.judges.spare import SpareSettings, spare
from spare_jax.judges.truth import truth
from spare_jax.models import heads, huggingface
from spare_jax.models.heads import TokenTagConvention
from spare_jax.models.huggingface import Checkpoint
from spare_jax.prompts.solve import orm_ids, prm_ids, solution_ids
from spare_jax.records import LabelledSolution
from spare_jax.report import examples, page
from spare_jax.run import Run, Stage
from spare_jax.settings import Config
from spare_jax.tasks import arithmetic
from spare_jax.training import batches, losses

logger = logging.getLogger(__name__)

CONTROLS = ("spare_no_reference", "spare_wrong_reference")


# solve


def solve(run: Run) -> list[str]:
    """Load or generate the problems; sample solutions of all of them."""
    counted = splits.load(run.config)
    for line in counted.notes:
        logger.warning(line)
    run.work.write("problems", counted.problems)
    run.work.write("gold", counted.gold)
    run.solve("solve", run.load("generator"), counted.problems, run.config.solve)
    return ["problems.jsonl", "gold.jsonl", "solutions.jsonl"]


# judge


def judge(run: Run) -> list[str]:
    """Outcomes and truth of all solutions; SPARE's annotation of those that train, choose and measure."""
    found, by_id, gold, solutions = run.records()
    outcomes = [outcome(run.task, gold[s.problem_id], s) for s in solutions]
    run.work.write("judgements/outcome", outcomes)
    written = ["judgements/outcome.jsonl"]
    if splits.has_truth(run.config.task):
        known = (truth(run.task, arithmetic.step_truth, by_id[s.problem_id], gold[s.problem_id], s) for s in solutions)
        run.work.write("judgements/truth", known)
        written.append("judgements/truth.jsonl")

    checkpoint = run.load("judge")
    policy = label_policy(run.config)
    settings = SpareSettings(
        max_length=run.max_length(checkpoint),
        max_tokens=run.config.annotate.max_tokens,
        temperature=run.config.annotate.temperature,
        top_p=run.config.annotate.top_p,
        guidelines=run.config.annotate.guidelines,
        exemplars=run.config.annotate.exemplars,
        seed=run.config.seed,
        policy=policy,
        model="judge",
    )
    measured = splits.measured(run.config, found)
    controls = splits.controls(run.config, found)
    annotated = [s for s in solutions if splits.split_of(s.problem_id) in ("train", "dev") or s.problem_id in measured]
    started: dict[str, Callable[[], programs.Program]] = {}
    for name, pool, reference_of in (
        ("spare", annotated, lambda problem_id: gold[problem_id].steps),
        ("spare_no_reference", [s for s in solutions if s.problem_id in controls], lambda problem_id: ()),
        (
            "spare_wrong_reference",
            [s for s in solutions if s.problem_id in controls],
            lambda problem_id: gold[controls[problem_id]].steps,
        ),
    ):
        for s in pool:
            started[f"{name}/{s.id}"] = functools.partial(
                spare,
                run.task,
                by_id[s.problem_id],
                gold[s.problem_id],
                s,
                checkpoint.tokenizer,
                dataclasses.replace(settings, judge=name),
                reference=reference_of(s.problem_id),
            )
    judgements = run.answer("judge", "", {"judge": run.engine(checkpoint)}, started)
    for name in ("spare", *CONTROLS):
        run.work.write(f"judgements/{name}", (j for j in judgements if j.judge == name))
        written.append(f"judgements/{name}.jsonl")
    if dropped := sum(j.exemplars_dropped for j in judgements):
        logger.warning("judge: %d exemplars were dropped so that prompts fit the context", dropped)
    labelled = _labelled(run, "train", by_id, gold, solutions)
    if left_out := files.write(run.work.path / "trl_stepwise.jsonl", "trl_stepwise", labelled):
        logger.warning("judge: %d solutions with a step without label are not in trl_stepwise.jsonl", left_out)
    return [*written, "trl_stepwise.jsonl"]


def label_policy(config: Config) -> LabelPolicy:
    """The switches of `config.annotate` as a policy."""
    names = (field.name for field in dataclasses.fields(LabelPolicy))
    return LabelPolicy(**{name: config.annotate[name] for name in names})


def _labelled(run: Run, split: str, by_id, gold, solutions) -> Iterator[LabelledSolution]:
    """The labelled solutions of a split; the reference joins them in training alone."""
    policy = label_policy(run.config)
    if split != "train":
        policy = dataclasses.replace(policy, reference_as_sample=False)
    pool = [s for s in solutions if splits.split_of(s.problem_id) == split and s.steps]
    yield from training_examples(run.task, by_id, pool, run.judgements("spare"), gold, policy)


# train_prm


def train_prm(run: Run) -> list[str]:
    """Train the process and the outcome reward model from the same weights, and export both.

    Nothing is trained where the config names an existing PRM.
    """
    if run.config.prm.path:
        return []
    _, by_id, gold, solutions = run.records()
    start = run.load("prm")
    convention = heads.choose_convention(start.tokenizer, run.config.prm.step_tags, run.config.prm.aggregation)
    digest = huggingface.tokenizer_digest(start.tokenizer)
    labelled = {split: list(_labelled(run, split, by_id, gold, solutions)) for split in ("train", "dev")}

    def example(item: LabelledSolution, kind: str) -> batches.Example:
        ids_of, labels = (prm_ids, item.labels) if kind == "prm" else (orm_ids, (item.judgement.outcome,))
        steps = solution_ids(start.tokenizer, item.solution, digest)
        ids, tags = ids_of(start.tokenizer, run.task, item.problem, steps, convention.tag_id)
        return batches.Example(ids, tags=tags, labels=labels)

    written = []
    for kind in ("prm", "orm"):
        sets = {}
        for split, items in labelled.items():
            limit = run.config.prm.balanced_limit if split == "train" else run.config.prm.balanced_limit // 40
            outcomes = [bool(item.judgement.outcome) for item in items]
            chosen, warning = batches.outcome_balanced(items, outcomes, run.config.seed, limit)
            if warning:
                logger.warning("train_prm, %s split: %s", split, warning)
            sets[split] = [example(item, kind) for item in chosen]
        model = start.model
        if sets["train"]:
            result = run.train(
                f"train_prm {kind}",
                run.work.path / kind / "checkpoints",
                dict(run.config.prm.train),
                model,
                functools.partial(losses.token_tag_loss, good_id=convention.good_id, bad_id=convention.bad_id),
                sets["train"],
                sets["dev"],
            )
            model = result.model
            run.measured.setdefault("train_prm", {}).update(
                {
                    f"{kind}_steps": result.steps,
                    f"{kind}_best_step": result.best_step,
                    f"{kind}_tags": result.train_counts.tags,
                    f"{kind}_tokens_per_second": result.tokens_per_second or 0.0,
                }
            )
        else:
            logger.warning("train_prm: no solution to train the %s on, it keeps its first weights", kind.upper())
        export = run.work.path / kind / "export"
        huggingface.save(export, model, start.config, start.tokenizer)
        heads.save_convention(export, convention)
        written.append(f"{kind}/export")
    return written


# rank


def rank(run: Run) -> list[str]:
    """Score the solutions of dev, test and held-out problems with every reward model there is."""
    _, by_id, _, solutions = run.records()
    ranked = [s for s in solutions if splits.split_of(s.problem_id) != "train"]
    check_pool(ranked)
    written = []
    for name, (checkpoint, convention) in _reward_models(run).items():
        settings = RewardModelSettings(
            tag_id=convention.tag_id,
            max_length=run.max_length(checkpoint),
            tokenizer_digest=huggingface.tokenizer_digest(checkpoint.tokenizer),
            model=name,
            judge=name,
        )
        program = outcome_score if name == "orm" else process_scores
        started = {
            f"{name}/{s.id}": functools.partial(
                program, run.task, by_id[s.problem_id], s, checkpoint.tokenizer, settings
            )
            for s in ranked
        }
        found = run.answer("rank", name, {name: run.engine(checkpoint, convention)}, started)
        run.work.write(f"judgements/{name}", found)
        written.append(f"judgements/{name}.jsonl")
    return written


def _reward_models(run: Run) -> dict[str, tuple[Checkpoint, TokenTagConvention]]:
    """The rankers by name: an existing PRM alone, or those of this run and the PRM's weights before training."""
    if run.config.prm.path:
        existing = huggingface.load(run.config.prm.path, mesh=run.inference_mesh)
        return {"prm": (existing, heads.load_convention(existing.path))}
    models = {}
    for kind in ("prm", "orm"):
        trained = huggingface.load(run.work.path / kind / "export", mesh=run.inference_mesh)
        models[kind] = (trained, heads.load_convention(trained.path))
    models["prm_at_init"] = (run.load("prm"), models["prm"][1])
    return models


# evaluate, report


def evaluate(run: Run) -> list[str]:
    """All metrics, from the records alone."""
    found, _, _, solutions = run.records()
    metrics = summary.metrics(
        found,
        solutions,
        {name: run.judgements(name) for name in summary.JUDGES},
        label_policy(run.config),
        seed=run.config.seed,
        n_samples=run.config.solve.samples,
        groups={p.id: splits.group_of(p.id) for p in found},
    )
    run.work.write_json("metrics.json", metrics)
    return ["metrics.json"]


def report(run: Run) -> list[str]:
    """One page of figures, costs and judged solutions."""
    found, by_id, gold, solutions = run.records()
    shown = examples.choose(
        by_id, gold, solutions, {name: run.judgements(name) for name in summary.JUDGES}, run.config.prm.aggregation
    )
    runs = [
        {"stage": stage, **measured}
        for path in sorted((run.work.path / "runs").glob("*.json"))
        for stage, measured in run.work.read_json(f"runs/{path.name}")["stages"].items()
    ]
    runs += [{"stage": stage, **measured} for stage, measured in run.measured.items()]
    meta = {
        "task": run.config.task,
        "generated": splits.has_truth(run.config.task),
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
    "train_prm": Stage(
        train_prm, ("seed", "task", "models", "mesh", "prm", "annotate"), (*RECORDS, "judgements/spare.jsonl")
    ),
    "rank": Stage(
        rank, ("seed", "task", "models", "prm.path", "engine", "mesh"), RECORDS, reads=("prm/export", "orm/export")
    ),
    "evaluate": Stage(evaluate, needs=(*RECORDS, "judgements/outcome.jsonl"), derived=True),
    "report": Stage(report, needs=(*RECORDS, "metrics.json"), derived=True),
}
