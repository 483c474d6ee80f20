"""Any judge by its name, over solutions that are there already.

What a judge needs of the run (models, engines, settings) is put together here, so that a stage names a judge and gets
its judgements, in the order of its cases. Writing them is the stage's.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerFast

from spare_jax import programs
from spare_jax.engines.endpoint import Endpoint
from spare_jax.evaluation.process_errors import choose_threshold, said_first_error, scores_of
from spare_jax.formats import files
from spare_jax.judges import conventions, ensemble
from spare_jax.judges.alignment import alignment
from spare_jax.judges.conventions import Reader
from spare_jax.judges.generative import GenerativeSettings, generative
from spare_jax.judges.outcome import outcome, require_answers
from spare_jax.judges.reward_model import RewardModelSettings
from spare_jax.judges.rollouts import rollouts
from spare_jax.judges.spare import SpareSettings, spare
from spare_jax.judges.tree_search import TreeSettings, tree_search
from spare_jax.judges.truth import Flips, truth
from spare_jax.judges.verify import VerifySettings, verify
from spare_jax.keys import FileName
from spare_jax.models import huggingface
from spare_jax.models.huggingface import Checkpoint
from spare_jax.prompts.generative import verdict_tokens
from spare_jax.records import Case, Gold, Judgement, LabelledSolution, StepJudgement, not_judged
from spare_jax.runs import models
from spare_jax.runs.models import EngineSettings, WithJudge, WithJudges
from spare_jax.runs.run import Engine, Run, StageFailed, answer
from spare_jax.tasks.task import Task


@dataclass(frozen=True)
class Judge:
    """A judge that is ready: the name of its judgements, how it starts on a case, and the engines that it asks."""

    name: str
    start: Callable[[Case], programs.Program]
    engines: Mapping[str, Engine] = field(default_factory=dict)


@dataclass(frozen=True)
class Judges:
    """How every judge is asked, and the models that they ask."""

    is_group: ClassVar[bool] = True  # each is a part of the config

    models: WithJudges = WithJudges()
    engine: EngineSettings = EngineSettings()
    annotate: SpareSettings = SpareSettings()  # judge spare
    verify: VerifySettings = VerifySettings()
    generative: GenerativeSettings = GenerativeSettings()
    rollouts: TreeSettings = TreeSettings()  # judges rollouts and tree_search
    flips: Flips = Flips()  # judge truth
    threshold: float = 0.5  # from here on a step that a judge only scores is right


@dataclass(frozen=True)
class EnsembleSettings:
    """Which judges are asked, and by which rule they are combined (judges/ensemble.py).

    The rule "weighted" learns on labelled solutions: the file `truth`, of a `format` (docs/formats.md). It says nothing
    of a step where the probability lies as near to the threshold as `margin`.
    """

    members: tuple[str, ...] = ("spare", "rollouts")
    rule: str = "agreement"
    truth: FileName = ""
    format: str = "processbench"
    margin: float = 0.0


def ask(
    run: Run, stage: str, judge: Judge, cases: Sequence[Case] | Mapping[str, Case], name: str = ""
) -> list[Judgement]:
    """The judgements of a judge on cases, in their order; resumable under the journal of `stage`.

    `name` names the judgements where it is another one than the judge's, as where a stage asks it in several ways. What
    a judge draws depends on the ids of its programs: those of a mapping, else `name` and the place of the case. A case
    that could not be judged has a judgement that says why (`failure`).
    """
    name = name or judge.name
    of = cases if isinstance(cases, Mapping) else {f"{name}/{i:08d}": case for i, case in enumerate(cases)}
    started = {i: functools.partial(judge.start, case) for i, case in of.items()}
    judged = answer(run, stage, name, judge.engines, started, lambda i, why: not_judged(of[i].solution, name, why))
    return [replace(judgement, judge=name) for judgement in judged]


def ready(run: Run, name: str, judges: Judges) -> Judge:
    """The judge of a name.

    `verify` and `generative` see nothing of the gold, `reward_model` the reference steps, for the one convention that
    reads them.

    Raises:
      ValueError: there is no such judge, or it is an ensemble, which asks others (`ask_ensemble`).
    """
    if name not in _READY:
        raise ValueError(f"judge={name!r} is unknown: choose among {', '.join(JUDGES)}")
    return _READY[name](run, judges)


def with_answers(task: Task, item: LabelledSolution) -> LabelledSolution:
    """`item` with the answers that its reference states and the answer that its solution states, where files have
    neither."""
    gold = item.gold or Gold(item.problem.id, ())
    if not gold.answers and (stated := task.extract_answer(gold.steps)):
        gold = replace(gold, answers=(stated,))
    stated = item.solution.answer or task.extract_answer(item.solution.steps)
    return replace(item, gold=gold, solution=replace(item.solution, answer=stated))


def reader(task: Task, checkpoint: Checkpoint, name: str = "", whole: bool = False) -> Reader:
    """How a reward model reads a solution; `name` of a convention where its directory does not say."""
    convention = conventions.of_model(checkpoint.path, name)
    if isinstance(convention, conventions.GenerativeConvention):
        raise huggingface.ModelError(
            f"{checkpoint.path} is a generative reward model and reads no tags: set config.judge='generative' and "
            "config.models.generative.path"
        )
    if isinstance(convention, conventions.TokenTagConvention):
        digest = huggingface.tokenizer_digest(checkpoint.tokenizer)
        return convention.reader(checkpoint.tokenizer, task, digest, whole)
    return convention.reader(checkpoint.tokenizer)


def annotator(run: Run, roles: WithJudge, sizes: EngineSettings, how: SpareSettings) -> Judge:
    """Judge spare."""
    checkpoint = models.load_to_ask(run, roles.judge, roles.generator)
    settings = replace(
        how,
        max_length=models.max_length(checkpoint, sizes),
        seed=run.seed,
        grammar=how.grammar and not isinstance(checkpoint, Endpoint),  # servers have no common word for it
    )

    def start(case: Case) -> programs.Program:
        return spare(run.task, case.problem, case.gold_for("spare"), case.solution, checkpoint.tokenizer, settings)

    engine = models.engine(run, checkpoint, sizes, settings.max_tokens, grammars=settings.grammar)
    return Judge("spare", start, {settings.model: engine})


@dataclass(frozen=True)
class Verifier:
    """The model that verifies, ready to be asked: its tokenizer, how it is asked, and its engine by its name."""

    tokenizer: PreTrainedTokenizerFast
    settings: VerifySettings
    engines: Mapping[str, Engine]


def verifier(run: Run, roles: WithJudge, sizes: EngineSettings, how: VerifySettings) -> Verifier:
    """The model that is prompted to verify."""
    checkpoint = models.load_to_ask(run, roles.judge, roles.generator)
    grammar = how.grammar and not isinstance(checkpoint, Endpoint)
    settings = replace(how, max_length=models.max_length(checkpoint, sizes), grammar=grammar)
    engine = models.engine(run, checkpoint, sizes, settings.max_tokens, grammars=grammar)
    return Verifier(checkpoint.tokenizer, settings, {settings.model: engine})


def _verify(run: Run, judges: Judges) -> Judge:
    asked = verifier(run, judges.models, judges.engine, judges.verify)

    def start(case: Case) -> programs.Program:
        return verify(run.task, case.problem, case.solution, asked.tokenizer, asked.settings)

    return Judge("verify", start, asked.engines)


def _by_rollouts(name: str, judge: Callable[..., programs.Program]) -> Callable[[Run, Judges], Judge]:
    """A judge that has the policy go on behind steps: `rollouts`, or `tree_search`."""

    def ready(run: Run, judges: Judges) -> Judge:
        checkpoint = models.load_to_ask(run, judges.models.generator)
        tokenizer, digest = checkpoint.tokenizer, huggingface.tokenizer_digest(checkpoint.tokenizer)
        max_length = models.max_length(checkpoint, judges.engine)
        settings = replace(judges.rollouts, max_length=max_length, judge=name)

        def start(case: Case) -> programs.Program:
            return judge(run.task, case.problem, case.gold_for(name), case.solution, tokenizer, digest, settings)

        return Judge(name, start, {settings.model: models.engine(run, checkpoint, judges.engine, settings.max_tokens)})

    return ready


def scorer(run: Run, checkpoint: Checkpoint, sizes: EngineSettings, how: Reader, name: str = "reward_model") -> Judge:
    """A reward model that is read so, as a judge."""
    settings = RewardModelSettings(models.max_length(checkpoint, sizes))

    def start(case: Case) -> programs.Program:
        return how.program(case.problem, case.solution, settings, case.gold.steps if case.gold else ())

    return Judge(name, start, {settings.model: models.engine(run, checkpoint, sizes, how.max_tokens, how.read_out)})


def _reward_model(run: Run, judges: Judges) -> Judge:
    entry = judges.models.prm
    checkpoint = models.load(run, entry, judges.models.generator)
    return scorer(run, checkpoint, judges.engine, reader(run.task, checkpoint, entry.convention))


def generative_settings(
    checkpoint: Checkpoint | Endpoint, sizes: EngineSettings, how: GenerativeSettings
) -> GenerativeSettings:
    """How a generative reward model is asked, of the kind that is named or the model's directory.

    Raises:
      ValueError: probabilities are asked of a server, or of a tokenizer that cannot tell verdicts apart.
    """
    server = isinstance(checkpoint, Endpoint)
    said = conventions.of_verifier(checkpoint.model if server else checkpoint.path, how.kind)
    settings = replace(how, max_length=models.max_length(checkpoint, sizes), **asdict(said))
    if server:
        if settings.scoring == "probability":
            raise ValueError("a server gives no probabilities of verdicts: set config.generative.scoring='verdict'")
        return replace(settings, grammar=False)
    if settings.scoring == "probability":
        verdict_tokens(checkpoint.tokenizer, settings.kind)  # a tokenizer without them is told before anything runs
    return settings


def _generative(run: Run, judges: Judges) -> Judge:
    checkpoint = models.load_to_ask(run, judges.models.generative, judges.models.generator)
    settings = generative_settings(checkpoint, judges.engine, judges.generative)

    def start(case: Case) -> programs.Program:
        return generative(run.task, case.problem, case.solution, checkpoint.tokenizer, settings)

    engine = models.engine(run, checkpoint, judges.engine, settings.max_tokens, grammars=settings.grammar)
    return Judge("generative", start, {settings.model: engine})


def _without_model(name: str, judge: Callable[[Run, Judges, Case], Judgement]) -> Callable[[Run, Judges], Judge]:
    """A judge that asks no model, as one that does."""

    def ready(run: Run, judges: Judges) -> Judge:
        def start(case: Case) -> programs.Program:
            yield []
            return judge(run, judges, case)

        return Judge(name, start)

    return ready


def _outcome(run: Run, judges: Judges, case: Case) -> Judgement:
    """The outcome, with nothing said of any step."""
    gold = case.gold_for("outcome")
    require_answers(gold, "outcome")
    said = outcome(run.task, gold, case.solution)
    return replace(said, steps=not_judged(case.solution, said.judge, "").steps)


def _truth(run: Run, judges: Judges, case: Case) -> Judgement:
    return truth(run.task, case.problem, case.gold_for("truth"), case.solution, replace(judges.flips, seed=run.seed))


def _alignment(run: Run, judges: Judges, case: Case) -> Judgement:
    return alignment(run.task, case.problem, case.gold_for("alignment"), case.solution)


# Every judge by its name; a new one is a file in judges/ and a line here.
_READY: dict[str, Callable[[Run, Judges], Judge]] = {
    "spare": lambda run, judges: annotator(run, judges.models, judges.engine, judges.annotate),
    "alignment": _without_model("alignment", _alignment),
    "rollouts": _by_rollouts("rollouts", rollouts),
    "tree_search": _by_rollouts("tree_search", tree_search),
    "verify": _verify,
    "reward_model": _reward_model,
    "generative": _generative,
    "truth": _without_model("truth", _truth),
    "outcome": _without_model("outcome", _outcome),
}
JUDGES = (*_READY, "ensemble")


@dataclass(frozen=True)
class Ensemble:
    """What an ensemble says, what its members said, by their names, and what it learned of them, if its rule learns."""

    judgements: list[Judgement]
    members: Mapping[str, Sequence[Judgement]]
    learned: Mapping[str, Any] | None


def ask_ensemble(run: Run, stage: str, cases: Sequence[Case], judges: Judges, how: EnsembleSettings) -> Ensemble:
    """Ask the members one after another, and combine what they say.

    Raises:
      StageFailed: there is no case that all of them have judged.
    """
    if "ensemble" in how.members or len(how.members) < 2:
        raise ValueError("config.ensemble.members needs two or more judges, none of them an ensemble")
    learned = _learned(run, stage, judges, how) if how.rule == "weighted" else None
    weighed = {"weights": learned[0], "threshold": learned[1], "margin": how.margin} if learned else {}
    members = {member: ask(run, stage, ready(run, member, judges), cases) for member in how.members}
    combined = [ensemble.combine(several, how.rule, **weighed) for several in zip(*members.values(), strict=True)]
    if combined and all(judgement.failure for judgement in combined):
        raise StageFailed(
            f"stage {stage}: of {len(combined)} solutions there is none that all members of the ensemble have judged, "
            f"the first: {combined[0].failure}"
        )
    return Ensemble(combined, members, learned and learned[2])


def _learned(
    run: Run, stage: str, judges: Judges, how: EnsembleSettings
) -> tuple[ensemble.Weights, float, dict[str, Any]]:
    """Weights and threshold of a weighted ensemble, learned on the solutions of `how.truth`, which the members judge
    too; and both as they are written down."""
    if not how.truth:
        raise ValueError(
            "config.ensemble.rule='weighted' learns on labelled solutions: set config.ensemble.truth to a file of them"
        )
    known = [with_answers(run.task, item) for item in files.read(how.truth, how.format)]
    judged: dict[str, list[Judgement]] = {}
    for member in how.members:
        judge = ready(run, member, judges)
        said = ask(run, stage, judge, [item.case for item in known], f"{member}_on_truth")
        judged[member] = [replace(judgement, judge=member) for judgement in said]
    weights, threshold = learn_ensemble(judged, [item.judgement for item in known])
    return weights, threshold, {"truth": how.truth, "solutions": len(known), "threshold": threshold, **asdict(weights)}


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
