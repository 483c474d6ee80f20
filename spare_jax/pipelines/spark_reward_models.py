"""SPARK, stage II: generative reward models by supervised fine-tuning on verifications (arXiv 2512.03244, stage II).

sample_tests     held-out and some test problems         -> solutions/test.jsonl
train_verifier   judgements/targets_<mode>.jsonl         -> verifiers/<mode>_<kind>/{export,training.json}
judge_tests      that model, the test solutions          -> judgements/<mode>_<kind>.jsonl
spark_verifiers  these, gold; derived                    -> verifiers/<mode>_<kind>/metrics.json, metrics.json

The last three are stages of a cell, a mode of spark_verifications.py and a kind: a work directory holds any number of
them, behind the targets that spark_verifications.py makes. The paper publishes no settings of this training. What a
generative model learns is the text of its kind (prompts/generative.py) and the end of it, behind the prompt by which
it is asked ever after; of kind "discriminative" is a process reward model with a head of two tokens (prm.py) on the
same targets.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spare_jax.evaluation.accuracy import Pool, selection_metrics
from spare_jax.evaluation.approvals import approvals
from spare_jax.evaluation.missing import NO_TRUTH, Missing, why_not_judged
from spare_jax.evaluation.process_errors import (
    FirstError,
    first_error_interval,
    first_error_metrics,
    first_false,
    judge_metrics,
    said_first_error,
)
from spare_jax.evaluation.statistics import mean_or_none
from spare_jax.judges import conventions
from spare_jax.judges.generative import GenerativeSettings
from spare_jax.judges.outcome import is_correct
from spare_jax.models.adapters import AdapterConfig
from spare_jax.models.huggingface import Checkpoint
from spare_jax.pipelines.cells import write_cell
from spare_jax.pipelines.prm import RewardModelTraining, train_reward_model
from spare_jax.pipelines.spark_verifications import answer_quality, known
from spare_jax.prompts import generative, verify
from spare_jax.prompts.chat import encode, encode_chat, end_ids
from spare_jax.records import Case, Gold, Judgement, LabelledSolution, Problem, Solution
from spare_jax.runs import ask, fit, solving, splits
from spare_jax.runs.models import (
    EngineSettings,
    Generator,
    Model,
    RewardModel,
    WithJudge,
    WithJudges,
    WithRewardModels,
    load_to_ask,
    load_to_train,
)
from spare_jax.runs.run import Run
from spare_jax.runs.stage import Stage
from spare_jax.selection.voting import candidates
from spare_jax.solvers.sample import SolveSettings
from spare_jax.tasks.task import Task
from spare_jax.training import batches, losses
from spare_jax.training.setup import TrainConfig

logger = logging.getLogger(__name__)

DISCRIMINATIVE = "discriminative"
KINDS = (*generative.KINDS, DISCRIMINATIVE)
TESTED = "solutions/test"


@dataclasses.dataclass(frozen=True)
class Tests:
    """Samples of the first so many test problems are judged; None: of all."""

    test_problems: int | None = None


@dataclasses.dataclass(frozen=True)
class Cell:
    """Whose targets the model learns from, a mode of spark_verifications.py, and which of KINDS it is."""

    targets: str = "step_consistency"
    kind: str = "prm_cot"

    @property
    def name(self) -> str:
        """The cell's name."""
        return f"{self.targets}_{self.kind}"


@dataclasses.dataclass(frozen=True)
class VerifierTraining(Cell, Tests):
    """How a generative reward model is trained.

    At most `limit` train targets are learnt. `brief` asks by BRIEF_GUIDELINES, in training and ever after, else by
    GUIDELINES. `balanced`: as many targets that say Yes as No, by their own word.
    """

    limit: int | None = None
    brief: bool = False
    balanced: bool = False
    lora: AdapterConfig = AdapterConfig()
    train: TrainConfig = TrainConfig()


# sample_tests


def sample_tests(
    run: Run, models: Generator, engine: EngineSettings, solve: SolveSettings, verifier: Tests
) -> list[str]:
    """Sample `solve.samples` solutions of every held-out problem, and of the first test problems by their ids, as many
    as `verifier.test_problems` says; once for all cells."""
    tested, policy = _tested(run, verifier), load_to_ask(run, models.generator)
    solving.solve(run, "sample_tests", policy, tested, engine, solve, kind=TESTED)
    return [f"{TESTED}.jsonl"]


def _tested(run: Run, tests: Tests) -> list[Problem]:
    problems = sorted(run.work.read("problems"), key=lambda problem: problem.id)
    tested = [p for p in problems if splits.split_of(p.id) == "test"][: tests.test_problems]
    return tested + [p for p in problems if splits.split_of(p.id) == splits.HELD_OUT]


# train_verifier


def train_verifier(
    run: Run, models: WithRewardModels, verifier: VerifierTraining, prm: RewardModelTraining
) -> list[str]:
    """Train the cell's reward model."""
    how, directory, labelled = verifier, f"verifiers/{verifier.name}", _targets(run, verifier)
    if how.kind == DISCRIMINATIVE:
        balanced = dataclasses.replace(prm, balanced=how.balanced)
        start = load_to_train(run, models.prm, models.generator, lora=prm.lora, dtype=prm.train.dtype)
        return train_reward_model(run, "train_verifier", start, balanced, "prm", directory, labelled)
    start = load_to_train(run, models.generative, models.generator, lora=how.lora, dtype=how.train.dtype)
    return fine_tune(run, "train_verifier", start, how, directory, labelled)


def _targets(run: Run, how: VerifierTraining) -> dict[str, list[LabelledSolution]]:
    """The mode's targets of train and dev problems; of train those that `how.limit` leaves, chosen by a digest of their
    ids."""
    problems, solutions = ({r.id: r for r in run.work.read(kind)} for kind in ("problems", "solutions"))
    found: dict[str, list[LabelledSolution]] = {"train": [], "dev": []}
    for target in run.work.read(f"judgements/targets_{how.targets}"):
        solution = solutions[target.solution_id]
        of_split = found[splits.split_of(solution.problem_id)]
        of_split.append(LabelledSolution(problems[solution.problem_id], solution, target))

    def drawn(item: LabelledSolution) -> bytes:
        return hashlib.blake2b(f"{run.seed}/{item.solution.id}".encode()).digest()

    if how.limit is not None:
        kept = sorted(found["train"], key=drawn)[: how.limit]
        found["train"] = sorted(kept, key=lambda item: item.solution.id)
    return found


def fine_tune(
    run: Run,
    stage: str,
    start: Checkpoint,
    how: VerifierTraining,
    directory: str,
    labelled: Mapping[str, Sequence[LabelledSolution]],
) -> list[str]:
    """Train one generative reward model from `start`, of a kind that is one of generative.KINDS, and export it; returns
    what it wrote.

    Args:
      stage: whose training it is.
      directory: of the work directory, for checkpoints/, export/, training.json and, with adapters, adapter/.
      labelled: {"train": ..., "dev": ...}, solutions whose judgement is the target. Those without a whole target
        (`generative.target`) are left out and counted. With `how.balanced` as many targets that say Yes as
        No are used, by their own word.

    Raises:
      ValueError: the kind is unknown, or there is nothing to learn from.
    """
    kind = how.kind
    guidelines = generative.BRIEF_GUIDELINES if how.brief else generative.GUIDELINES
    convention = conventions.GenerativeConvention(kind, guidelines.get(kind, ""))
    rows, left_out = [], {}
    for split in ("train", "dev"):
        found = ((item.judgement.outcome, example(run.task, start, convention, item)) for item in labelled[split])
        whole = [(outcome, learnt) for outcome, learnt in found if learnt is not None]
        left_out[split] = len(labelled[split]) - len(whole)
        if how.balanced:
            outcomes = [bool(outcome) for outcome, _ in whole]
            whole, warning = batches.outcome_balanced(whole, outcomes, run.seed)
            if warning:
                logger.warning("%s %s, %s split: %s", stage, kind, split, warning)
        rows.append(batches.pack([learnt for _, learnt in whole], how.train.row_length))
    if any(left_out.values()):
        logger.warning(
            "%s %s: of %d train and %d dev solutions %d and %d have no whole target and are left out",
            stage, kind, *(len(labelled[split]) for split in left_out), *left_out.values(),
        )  # fmt: skip
    counted = {"kind": kind, "left_out": left_out}
    loss = losses.LanguageModelLoss()
    written = fit.fine_tune(run, f"{stage} {directory}", directory, start, loss, rows, how.train, counted)
    for path in written:
        if (run.work.path / path).is_dir():
            conventions.save_convention(run.work.path / path, convention)
    return written


def example(
    task: Task, start: Checkpoint, convention: conventions.GenerativeConvention, item: LabelledSolution
) -> batches.Example | None:
    """What is learnt of a solution: its target and the end of the text, behind the prompt; None where the target is not
    whole."""
    if (text := generative.target(convention.kind, item.judgement)) is None:
        return None
    messages = verify.render(task, item.problem, item.solution.steps, convention.guidelines)
    prompt = encode_chat(start.tokenizer, messages)
    return batches.completion_example(
        [*prompt, *encode(start.tokenizer, text), *end_ids(start.tokenizer)[:1]], len(prompt)
    )


# judge_tests


def judge_tests(run: Run, engine: EngineSettings, generative: GenerativeSettings, verifier: Cell) -> list[str]:
    """Ask the cell's model about every test solution that has steps."""
    name, problems = verifier.name, {p.id: p for p in run.work.read("problems")}
    cases = [Case(problems[s.problem_id], s) for s in run.work.read(TESTED) if s.steps]
    path, discriminative = f"verifiers/{name}/export", verifier.kind == DISCRIMINATIVE
    roles = WithJudges(prm=RewardModel(path)) if discriminative else WithJudges(generative=Model(path))
    judges = ask.Judges(models=roles, engine=engine, generative=generative)
    judge = ask.ready(run, "reward_model" if discriminative else "generative", judges)
    stage = STAGES["judge_tests"].label("judge_tests", {"verifier": vars(verifier)})
    run.work.write(f"judgements/{name}", ask.ask(run, stage, judge, cases, name))
    return [f"judgements/{name}.jsonl"]


# spark_verifiers


def spark_verifiers(
    run: Run,
    models: WithJudge,
    solve: SolveSettings,
    generative: GenerativeSettings,
    verifier: VerifierTraining,
    prm: RewardModelTraining,
    threshold: float = ask.Judges.threshold,
) -> list[str]:
    """metrics.json of the cell: what its model learnt from, and what its word is worth."""
    name = verifier.name
    gold = {one.problem_id: one for one in run.work.read("gold")}
    judgements, solutions = run.judgements(name), run.work.read(TESTED)
    training = f"verifiers/{name}/training.json"
    measured: dict[str, Any] = {
        "mode": verifier.targets,
        "kind": verifier.kind,
        "training": run.work.read_json(training) if (run.work.path / training).exists() else None,
    }
    for side, split in (("in_distribution", "test"), ("out_of_distribution", splits.HELD_OUT)):
        asked = {p.id: p for p in _tested(run, verifier) if splits.split_of(p.id) == split}
        of_side = [s for s in solutions if s.problem_id in asked]
        measured[side] = measure(run.task, asked, gold, of_side, judgements, threshold, run.seed) if asked else None
    settings = dict(solve=solve, verifier=verifier, generative=generative, prm=prm)
    return write_cell(run, f"verifiers/{name}", models, settings, measured)


def measure(
    task: Task,
    problems: Mapping[str, Problem],
    gold: Mapping[str, Gold],
    solutions: Sequence[Solution],
    judgements: Mapping[str, Judgement],
    threshold: float,
    seed: int,
) -> dict[str, Any]:
    """What the judgements of solutions are worth. Every figure is over what was judged, and whose truth is known.

    Where the truth of single steps is not known, first errors are those of solutions taken as one step, which is right
    where its answer is. No threshold is chosen here: `threshold` makes labels of a judge that only scores.

    Args:
      problems: by id, those that were sampled; gold: by problem.
      solutions: all of every problem.
      judgements: by solution, of those that have steps.

    Returns:
      {"problems", "not_sampled" (problems without any solution), "solutions" (those the judge was asked about),
      "failed" (of these those that were not judged), "steps" (judge_metrics), "first_error" (first_error_metrics, its
      interval as "low" and "high", and "against": "truth" or "outcome"), "answers" (answer_quality), "approvals",
      "read_per_verification" and "written_per_verification" (tokens), "selection" (selection_metrics of the rankers
      "prm", the steps' scores, and "outcome", the answer's, where there is one)}
    """
    asked = [s for s in solutions if s.steps]
    said = [ask.decided(judgements[s.id], threshold) for s in asked]
    real = [known(task, problems[s.problem_id], gold[s.problem_id], s) for s in asked]
    errors = [
        said_first_error(j, len(s.steps)) if task.world else _as_one_step(j) for j, s in zip(said, asked, strict=True)
    ]
    known_errors = [
        first_false([step.label for step in j.steps] if task.world else [j.outcome], NO_TRUTH) for j in real
    ]
    interval = first_error_interval(errors, known_errors, [s.problem_id for s in asked], seed)
    judged = [j for j in said if not j.failure]
    return {
        "problems": len(problems),
        "not_sampled": len(problems.keys() - {s.problem_id for s in solutions}),
        "solutions": len(asked),
        "failed": len(said) - len(judged),
        "steps": judge_metrics(said, real),
        "first_error": {
            "against": "truth" if task.world else "outcome",
            **first_error_metrics(errors, known_errors),
            **interval,
        },
        "answers": answer_quality(said, real),
        "approvals": approvals(asked, said, [j.outcome for j in real]),
        "read_per_verification": mean_or_none([j.prompt_tokens for j in judged]),
        "written_per_verification": mean_or_none([j.generated_tokens for j in judged]),
        "selection": _selection(task, gold, problems, solutions, {j.solution_id: j for j in said}, seed),
    }


def _as_one_step(judgement: Judgement) -> FirstError:
    """The first error of a solution that is one step: wrong where any step of it is called so, right where all are. Of
    a judge of whole answers, who labels the last step alone, that label counts."""
    if why := why_not_judged(judgement):
        return Missing(why)
    *others, last = (step.label for step in judgement.steps)
    labels = [last] if all(label is None for label in others) else [*others, last]
    return first_false([False if False in labels else None if None in labels else True])


def _selection(
    task: Task,
    gold: Mapping[str, Gold],
    problems: Iterable[str],
    solutions: Sequence[Solution],
    said: Mapping[str, Judgement],
    seed: int,
) -> dict[str, Any]:
    of_problem: dict[str, list[Solution]] = {problem_id: [] for problem_id in problems}
    for solution in solutions:
        of_problem[solution.problem_id].append(solution)
    pools = [
        Pool(
            i,
            candidates([s.answer for s in of], task.answers_equal),
            tuple(is_correct(task, gold[i], s) for s in of),
        )
        for i, of in of_problem.items()
    ]
    silent = Judgement("", "")  # of a solution without steps, which ranks last
    judged = [[said.get(s.id, silent) for s in of] for of in of_problem.values()]
    rankers = {
        "prm": [[None if j.failure else [step.score for step in j.steps] for j in of] for of in judged],
        "outcome": [[None if j.failure else [j.outcome_score] for j in of] for of in judged],
    }
    if all(j.outcome_score is None for of in judged for j in of):
        del rankers["outcome"]
    return selection_metrics(pools, rankers, seed)


_CELL = ("verifier.targets", "verifier.kind")
_NAME = "{verifier[targets]}_{verifier[kind]}"
_SOLVED = ("problems.jsonl", f"{TESTED}.jsonl")

STAGES = {
    "sample_tests": Stage(sample_tests, ("problems.jsonl",)),
    "train_verifier": Stage(
        train_verifier,
        ("problems.jsonl", "solutions.jsonl", "judgements/targets_{verifier[targets]}.jsonl"),
        per=_CELL,
    ),
    "judge_tests": Stage(judge_tests, (*_SOLVED, f"verifiers/{_NAME}/export"), per=_CELL),
    "spark_verifiers": Stage(
        spark_verifiers, needs=(*_SOLVED, "gold.jsonl", f"judgements/{_NAME}.jsonl"), derived=True, per=_CELL
    ),
}

PIPELINE = STAGES
