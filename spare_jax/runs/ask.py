"""Any judge by its name, over solutions that are there already.

What a judge needs of the run (models, engines, settings) is put together here, so that a stage names a judge and gets
its judgements, in the order of the solutions.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from spare_jax import programs
from spare_jax.engines.endpoint import Endpoint, EndpointEngine
from spare_jax.engines.local import LocalEngine
from spare_jax.evaluation.process_errors import choose_threshold, said_first_error, scores_of
from spare_jax.formats import files
from spare_jax.judges import conventions, ensemble
from spare_jax.judges.alignment import alignment
from spare_jax.judges.conventions import ProgramReader, Reader
from spare_jax.judges.generative import GenerativeSettings, generative
from spare_jax.judges.outcome import outcome, require_answers
from spare_jax.judges.reward_model import RewardModelSettings
from spare_jax.judges.rollouts import RolloutSettings, rollouts
from spare_jax.judges.spare import SpareSettings, spare
from spare_jax.judges.tree_search import TreeSettings, tree_search
from spare_jax.judges.truth import Flips, truth
from spare_jax.judges.verify import VerifySettings, verify
from spare_jax.models import huggingface
from spare_jax.models.huggingface import Checkpoint
from spare_jax.prompts.generative import verdict_tokens
from spare_jax.records import Gold, Judgement, LabelledSolution, StepJudgement, not_judged
from spare_jax.runs.run import Run, StageFailed
from spare_jax.runs.settings import Config
from spare_jax.targets.labels import LabelPolicy
from spare_jax.tasks.task import Task

JUDGES = (
    "spare", "alignment", "rollouts", "tree_search", "verify", "reward_model", "generative", "truth", "outcome",
    "ensemble",
)  # fmt: skip


def judge(run: Run, stage: str, name: str, found: Sequence[LabelledSolution], variant: str = "") -> list[Judgement]:
    """The judgements of judge `name` on `found`, in that order; resumable under the journal of `stage`.

    `variant` names the judgements where one stage asks a judge in several ways; each draws its own samples.
    `verify` and `generative` are handed nothing of the gold, `reward_model` the reference steps, for the one convention
    that reads them. A solution that could not be judged has a judgement that says why (`failure`).

    Raises:
      ValueError: there is no such judge.
    """
    if name == "ensemble":
        return _ensemble(run, stage, found)
    part = variant or name
    ids = [f"{part}/{number:08d}" for number in range(len(found))]
    solution_of = {i: item.solution for i, item in zip(ids, found, strict=True)}
    start, engines = begin(run, name)
    started = {i: functools.partial(start, item) for i, item in zip(ids, found, strict=True)}
    judged = run.answer(stage, part, engines, started, lambda i, why: not_judged(solution_of[i], part, why))
    return [replace(judgement, judge=part) for judgement in judged] if variant else judged


def begin(run: Run, name: str) -> "tuple[_Start, _Engines]":
    """How judge `name` starts on a solution, and the engines that it then asks.

    Raises:
      ValueError: there is no such judge, or it is an ensemble, which asks others.
    """
    if name not in _START:
        raise ValueError(f"judge={name!r} is unknown: choose among {', '.join(JUDGES)}")
    return _START[name](run)


def with_answers(task: Task, item: LabelledSolution) -> LabelledSolution:
    """`item` with the answers that its reference states and the answer that its solution states, where files have
    neither."""
    gold = item.gold or Gold(item.problem.id, ())
    if not gold.answers and (stated := task.extract_answer(gold.steps)):
        gold = replace(gold, answers=(stated,))
    stated = item.solution.answer or task.extract_answer(item.solution.steps)
    return replace(item, gold=gold, solution=replace(item.solution, answer=stated))


def label_policy(config: Config) -> LabelPolicy:
    """The switches of `config.annotate` as a policy."""
    return LabelPolicy(**{field.name: config.annotate[field.name] for field in fields(LabelPolicy)})


def spare_settings(run: Run, checkpoint: Checkpoint | Endpoint) -> SpareSettings:
    """How `config.annotate` asks the annotator."""
    how = run.config.annotate
    return SpareSettings(
        max_length=run.max_length(checkpoint),
        max_tokens=how.max_tokens,
        votes=how.votes,
        temperature=how.temperature,
        top_p=how.top_p,
        guidelines=how.guidelines,
        exemplars=how.exemplars,
        draws=how.draws,
        seed=run.config.seed,
        grammar=how.grammar and not isinstance(checkpoint, Endpoint),  # servers have no common word for it
        policy=label_policy(run.config),
        model="judge",
    )


def verify_settings(run: Run, checkpoint: Checkpoint | Endpoint) -> VerifySettings:
    """How `config.verify` asks the verifier."""
    settings = VerifySettings(max_length=run.max_length(checkpoint), **run.config.verify)
    return replace(settings, grammar=False) if isinstance(checkpoint, Endpoint) else settings


def reader(run: Run, checkpoint: Checkpoint, name: str = "", whole: bool = False) -> Reader | ProgramReader:
    """How a reward model reads a solution; `name` of a convention where its directory does not say."""
    convention = conventions.of_model(checkpoint.path, name)
    if isinstance(convention, conventions.GenerativeConvention):
        raise huggingface.ModelError(
            f"{checkpoint.path} is a generative reward model and reads no tags: set config.judge='generative' and "
            "config.models.verifier.path"
        )
    if isinstance(convention, conventions.TokenTagConvention):
        digest = huggingface.tokenizer_digest(checkpoint.tokenizer)
        return convention.reader(checkpoint.tokenizer, run.task, digest, whole)
    return convention.reader(checkpoint.tokenizer)


_Start = Callable[[LabelledSolution], programs.Program]
_Engines = dict[str, LocalEngine | EndpointEngine]


def _gold(item: LabelledSolution) -> Gold:
    return item.gold or Gold(item.problem.id, ())


def _spare(run: Run) -> tuple[_Start, _Engines]:
    checkpoint = run.load_to_ask("judge")
    settings = spare_settings(run, checkpoint)
    engine = run.engine(checkpoint, settings.max_tokens, grammars=settings.grammar)
    return (
        lambda item: spare(run.task, item.problem, _gold(item), item.solution, checkpoint.tokenizer, settings),
        {"judge": engine},
    )


def _verify(run: Run) -> tuple[_Start, _Engines]:
    checkpoint = run.load_to_ask("judge")
    settings = verify_settings(run, checkpoint)
    engine = run.engine(checkpoint, settings.max_tokens, grammars=settings.grammar)
    return lambda item: verify(run.task, item.problem, item.solution, checkpoint.tokenizer, settings), {"judge": engine}


def rollout_settings(run: Run, checkpoint: Checkpoint | Endpoint, judge: str) -> RolloutSettings:
    """How `config.rollouts` has a policy go on."""
    how = run.config.rollouts
    return RolloutSettings(
        max_length=run.max_length(checkpoint),
        max_tokens=how.max_tokens,
        samples=how.samples,
        temperature=how.temperature,
        top_p=how.top_p,
        threshold=how.threshold,
        judge=judge,
    )


def _rollouts(run: Run) -> tuple[_Start, _Engines]:
    checkpoint = run.load_to_ask("generator")
    digest, settings = huggingface.tokenizer_digest(checkpoint.tokenizer), rollout_settings(run, checkpoint, "rollouts")
    return (
        lambda item: rollouts(
            run.task, item.problem, _gold(item), item.solution, checkpoint.tokenizer, digest, settings
        ),
        {"generator": run.engine(checkpoint, settings.max_tokens)},
    )


def _tree_search(run: Run) -> tuple[_Start, _Engines]:
    checkpoint = run.load_to_ask("generator")
    digest = huggingface.tokenizer_digest(checkpoint.tokenizer)
    settings = TreeSettings(rollout_settings(run, checkpoint, "tree_search"), run.config.rollouts.searches)
    return (
        lambda item: tree_search(
            run.task, item.problem, _gold(item), item.solution, checkpoint.tokenizer, digest, settings
        ),
        {"generator": run.engine(checkpoint, settings.rollouts.max_tokens)},
    )


def _reward_model(run: Run) -> tuple[_Start, _Engines]:
    checkpoint = run.load("prm")
    how = reader(run, checkpoint, run.config.models.prm.convention)
    settings = RewardModelSettings(run.max_length(checkpoint), judge="reward_model")

    def start(item: LabelledSolution) -> programs.Program:
        return how.program(item.problem, item.solution, settings, _gold(item).steps)

    return start, {settings.model: run.engine(checkpoint, how.max_tokens, how.read_out)}


def generative_settings(run: Run, checkpoint: Checkpoint | Endpoint) -> GenerativeSettings:
    """How `config.generative` asks a generative reward model, of the kind that it names or the model's directory.

    Raises:
      ValueError: probabilities are asked of a server, or of a tokenizer that cannot tell verdicts apart.
    """
    how = run.config.generative.to_dict()
    server = isinstance(checkpoint, Endpoint)
    said = conventions.of_verifier(checkpoint.model if server else checkpoint.path, how.pop("kind"))
    settings = GenerativeSettings(run.max_length(checkpoint), **asdict(said), **how)
    if server:
        if settings.scoring == "probability":
            raise ValueError("a server gives no probabilities of verdicts: set config.generative.scoring='verdict'")
        return replace(settings, grammar=False)
    if settings.scoring == "probability":
        verdict_tokens(checkpoint.tokenizer, settings.kind)  # a tokenizer without them is told before anything runs
    return settings


def _generative(run: Run) -> tuple[_Start, _Engines]:
    checkpoint = run.load_to_ask("verifier")
    settings = generative_settings(run, checkpoint)
    engine = run.engine(checkpoint, settings.max_tokens, grammars=settings.grammar)
    return (
        lambda item: generative(run.task, item.problem, item.solution, checkpoint.tokenizer, settings),
        {settings.model: engine},
    )


def _without_model(of: Callable[[Task, LabelledSolution], Judgement]) -> Callable[[Run], tuple[_Start, _Engines]]:
    """A judge that asks nobody, as one that does."""

    def prepare(run: Run) -> tuple[_Start, _Engines]:
        def start(item: LabelledSolution) -> programs.Program:
            yield []
            return of(run.task, item)

        return start, {}

    return prepare


def _outcome(task: Task, item: LabelledSolution) -> Judgement:
    """The outcome, with nothing said of any step."""
    require_answers(_gold(item), "outcome")
    said = outcome(task, _gold(item), item.solution)
    return replace(said, steps=not_judged(item.solution, said.judge, "").steps)


def _truth(run: Run) -> tuple[_Start, _Engines]:
    flips = Flips(run.config.flips.correct, run.config.flips.incorrect, run.config.seed)
    return _without_model(lambda task, item: truth(task, item.problem, _gold(item), item.solution, flips))(run)


_START: dict[str, Callable[[Run], tuple[_Start, _Engines]]] = {
    "spare": _spare,
    "verify": _verify,
    "rollouts": _rollouts,
    "tree_search": _tree_search,
    "reward_model": _reward_model,
    "generative": _generative,
    "truth": _truth,
    "alignment": _without_model(lambda task, item: alignment(task, item.problem, _gold(item), item.solution)),
    "outcome": _without_model(_outcome),
}


def _ensemble(run: Run, stage: str, found: Sequence[LabelledSolution]) -> list[Judgement]:
    """The members of `config.ensemble` one after another, written as they are, and combined."""
    how = run.config.ensemble
    if "ensemble" in how.members or len(how.members) < 2:
        raise ValueError("config.ensemble.members needs two or more judges, none of them an ensemble")
    learned = _learned(run, stage) if how.rule == "weighted" else {}
    judged = []
    for member in how.members:
        judged.append(judge(run, stage, member, found))
        run.work.write(f"judgements/{member}", judged[-1])
    combined = [ensemble.combine(several, how.rule, **learned) for several in zip(*judged, strict=True)]
    if combined and all(judgement.failure for judgement in combined):
        raise StageFailed(
            f"stage {stage}: of {len(combined)} solutions there is none that all members of the ensemble have judged, "
            f"the first: {combined[0].failure}"
        )
    return combined


def _learned(run: Run, stage: str) -> dict[str, Any]:
    """Weights and threshold of a weighted ensemble, learned on the solutions of `config.ensemble.truth`, which the
    members judge too; both are written as ensemble.json."""
    how = run.config.ensemble
    if not how.truth:
        raise ValueError(
            "config.ensemble.rule='weighted' learns on labelled solutions: set config.ensemble.truth to a file of them"
        )
    known = [with_answers(run.task, item) for item in files.read(how.truth, how.format)]
    judged = {
        member: [replace(said, judge=member) for said in judge(run, stage, member, known, f"{member}_on_truth")]
        for member in how.members
    }
    weights, threshold = learn_ensemble(judged, [item.judgement for item in known])
    said = {"truth": how.truth, "solutions": len(known), "threshold": threshold, **asdict(weights)}
    run.work.write_json("ensemble.json", said)
    return {"weights": weights, "threshold": threshold, "margin": how.margin}


def learn_ensemble(
    members: Mapping[str, Sequence[Judgement]], truths: Sequence[Judgement]
) -> tuple[ensemble.Weights, float]:
    """What a truth set teaches a weighted ensemble: its weights, and the threshold with the best first-error F1 there.

    Args:
      members: judgements by the member's name, which is their judge's, in the order of `truths`.
      truths: the known labels.
    """
    names = [str(i) for i in range(len(truths))]  # two rows of a file may be the same solution
    by_name = {member: dict(zip(names, judgements, strict=True)) for member, judgements in members.items()}
    weights = ensemble.fit(by_name, dict(zip(names, truths, strict=True)))
    combined = [ensemble.combine(said, "weighted", weights) for said in zip(*members.values(), strict=True)]
    first_errors = [said_first_error(truth, len(truth.steps)) for truth in truths]
    return weights, choose_threshold([scores_of(said) for said in combined], first_errors)


def decided(judgement: Judgement, threshold: float) -> Judgement:
    """The judgement with a label per step and an outcome, where its judge gave scores alone: from `threshold` on a step
    is right, and the last step's label is the outcome."""
    labels = labels_of(judgement, threshold)
    steps = tuple(replace(step, label=label) for step, label in zip(judgement.steps, labels, strict=True))
    last = judgement.steps[-1] if judgement.steps else StepJudgement()
    by_score = judgement.outcome is None and last.label is None and last.score is not None
    return replace(judgement, steps=steps, outcome=labels[-1] if by_score else judgement.outcome)


def labels_of(judgement: Judgement, threshold: float) -> tuple[bool | None, ...]:
    """One label per step: the judge's own, or where it gave a score alone whether that reaches `threshold`."""
    return tuple(
        step.label if step.label is not None or step.score is None else step.score >= threshold
        for step in judgement.steps
    )
