"""Online reinforcement learning: a policy is paid by a judge for what it samples (SPARK, arXiv 2512.03244, stage III).

grpo           train problems, a judge or a control  -> policies/<reward>/{checkpoints,export,training.json}
solve_tests    that policy, test problems            -> solutions/<reward>.jsonl
judge_answers  these, the judge that paid            -> judgements/policy_<reward>.jsonl
online_rl      all of it, gold; derived              -> policies/<reward>/metrics.json, metrics.json

Before them prm.py's load_problems. All are stages of a reward: a work directory holds any number of them, all from
the same policy. The loop is training/grpo.py. Here are its models and its judge: one of runs/ask.py, asked on an
engine of its own, or one of the controls that ask no model. `config.grpo` has the settings.
"""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from spare_jax import programs
from spare_jax.engines.local import LocalEngine
from spare_jax.evaluation.approvals import approvals
from spare_jax.judges.generative import GenerativeSettings
from spare_jax.judges.outcome import is_correct, outcome, require_answers
from spare_jax.keys import unlisted
from spare_jax.models import huggingface
from spare_jax.models.adapters import AdapterConfig
from spare_jax.pipelines import policies, prm
from spare_jax.pipelines.cells import write_cell
from spare_jax.records import Case, Gold, Judgement, Problem, Solution, not_judged
from spare_jax.runs import ask, splits
from spare_jax.runs.models import (
    EngineSettings,
    Model,
    Models,
    Rewarding,
    engine,
    export,
    load_to_ask,
    load_to_train,
)
from spare_jax.runs.run import Run, progress_bar
from spare_jax.runs.stage import Stage
from spare_jax.solvers.sample import SolveSettings
from spare_jax.storage.jsonlines import read_lines
from spare_jax.training import format_rules, loop, watch
from spare_jax.training.advantages import REWARDS, coin, vote
from spare_jax.training.grpo import GRPOConfig, Judge, Policy, Unwritten, train
from spare_jax.training.setup import TrainConfig


@dataclasses.dataclass(frozen=True)
class Updates(TrainConfig):
    """How an iteration's samples are learnt from; rows hold a prompt and a solution, or several. The learning rate is
    constant, and what counts rows and epochs is not read."""

    batch_rows: int = unlisted(TrainConfig.batch_rows)
    epochs: float = unlisted(TrainConfig.epochs)
    warmup: float = unlisted(TrainConfig.warmup)
    eval_every: int = unlisted(TrainConfig.eval_every)
    patience: int = unlisted(TrainConfig.patience)
    checkpoint_every: int = unlisted(TrainConfig.checkpoint_every)


@dataclasses.dataclass(frozen=True)
class OnlineRL(GRPOConfig):
    """GRPO's settings, and who pays: `judge`, a judge of runs/ask.py, where the reward asks one.

    `forbidden` is V, the form without which nothing is earned (training/format_rules.py, FAILURES). On `watch_problems`
    dev problems the reward is compared with the truth, on none it never is. What is updated has to be what has sampled,
    so adapters drop nothing out.
    """

    judge: str = "verify"
    forbidden: tuple[str, ...] = format_rules.FORBIDDEN
    watch_problems: int = 16
    lora: AdapterConfig = AdapterConfig(dropout=0.0)
    train: Updates = Updates()


def train_policy(run: Run, models: Models, judges: ask.Judges, grpo: OnlineRL) -> list[str]:
    """Train a policy, and export it.

    Raises:
      ValueError: the judge gave no judgements: an alarm whose action is "abort" went off, or there was not one.
    """
    how, loaded = grpo, run.work.read("problems")
    gold = {one.problem_id: one for one in run.work.read("gold")}
    problems = [p for p in loaded if splits.split_of(p.id) == "train"]
    held_out = [p for p in loaded if splits.split_of(p.id) == "dev"][: how.watch_problems]
    start = load_to_train(run, models.policy, models.generator, lora=how.lora, dtype=how.train.dtype)
    # What is sampled with is what is trained, so nothing of it is quantized for the engine alone.
    sampler = engine(run, start, dataclasses.replace(judges.engine, quantize=""), how.max_tokens)
    assert isinstance(sampler, LocalEngine)  # load_to_train refuses a server
    digest = huggingface.tokenizer_digest(start.tokenizer)
    policy = Policy(run.task, start.tokenizer, digest, format_rules.rules_of(run.task, how.forbidden))
    directory = f"policies/{how.reward}"
    checkpoints, judge = run.work.path / directory / "checkpoints", _counted(run, how, judge_of(run, how, judges, gold))
    with progress_bar(how.iterations, f"grpo {how.reward}", "iteration") as bar:

        def progress(iteration: int, iterations: int, metrics: watch.Metrics) -> None:
            bar.update(iteration - bar.n)
            shown = {name: metrics[name] for name in ("reward", "valid", "kl", "judge/failed")}
            bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items() if value is not None}, refresh=False)

        result = train(
            loop_settings(run, how), start.model, sampler, policy, problems, judge, checkpoints, run.mesh, held_out,
            lambda solution: is_correct(run.task, gold[solution.problem_id], solution), progress,
        )  # fmt: skip
    said = {key: getattr(result, key) for key in ("iterations", "rollbacks", "stopped_by", "judged", "failed")}
    run.work.write_json(f"{directory}/training.json", said)
    return [*export(run, directory, result.model, start), f"{directory}/training.json"]


def loop_settings(run: Run, how: OnlineRL) -> OnlineRL:
    """The settings with what follows from others: the run's seed, and the longest solution."""
    loss = dataclasses.replace(how.loss, max_tokens=how.max_tokens)
    return dataclasses.replace(how, loss=loss, train=dataclasses.replace(how.train, seed=run.seed))


def judge_of(run: Run, how: OnlineRL, judges: ask.Judges, gold: Mapping[str, Gold]) -> Judge:
    """Who pays, by the reward: its judge, the comparison with the gold answer, a coin, or a vote.

    Raises:
      ValueError: there is no such judge.
    """
    verdicts = REWARDS[how.reward].verdicts
    if verdicts == "judge":
        return _asked(run, how, judges, gold)

    def by_itself(draw: str, problem: Problem, solutions: Sequence[Solution]) -> list[Judgement]:
        if verdicts == "vote":
            return vote(problem.id, solutions, run.seed, run.task.answers_equal)
        if verdicts == "coin":
            return [coin(run.seed, solution, draw) for solution in solutions]
        require_answers(gold[problem.id], how.reward)
        return [outcome(run.task, gold[problem.id], solution) for solution in solutions]

    return lambda name, groups: [by_itself(f"{name}/{place:04d}", *group) for place, group in enumerate(groups)]


def _counted(run: Run, how: OnlineRL, judge: Judge) -> Judge:
    """The judge, whose failures the run counts and tells at its end. None of them is asked again by another run: what
    an iteration has learnt from is gone with it."""
    stage = STAGES["grpo"].label("grpo", {"grpo": vars(how)})

    def judge_groups(name: str, groups: Sequence[tuple[Problem, Sequence[Solution]]]) -> Sequence[Sequence[Judgement]]:
        judged = judge(name, groups)
        failures = {
            f"{name}/{place:04d}/{said.solution_id}": programs.Failure(said.failure, passing=False)
            for place, group in enumerate(judged)
            for said in group
            if said.failure
        }
        run.asked[stage] += sum(map(len, judged))
        if failures:
            run.failures.setdefault(stage, {}).update(failures)
        return judged

    return judge_groups


class _Spent(Unwritten):
    """Counts the tokens that were generated for each program, also for one that then fails."""

    def __init__(self):
        self.tokens = collections.Counter[str]()

    def put(self, request_id: str, completions: tuple[programs.Completion, ...]) -> None:
        """Request ids are the program's id, the round and the request's place in it."""
        self.tokens[request_id.rsplit("/", 2)[0]] += programs.tokens_written(completions)


# Judges whose word on the answer, and on each step, stands in a text, which may leave one out. The word of the others
# is a comparison, a score or a share of rollouts: where it is missing nothing was left out, it could not be told.
_WRITE_OF_ANSWERS = ("verify", "generative")
_WRITE_OF_STEPS = (*_WRITE_OF_ANSWERS, "spare")


def _asked(run: Run, how: OnlineRL, judges: ask.Judges, gold: Mapping[str, Gold]) -> Judge:
    """A judge of runs/ask.py, whose engines stay up. What it could not judge has a judgement that says why, and so has
    what it judged in part where the reward needs the rest."""
    judge, reads_steps = how.judge, REWARDS[how.reward].reads_steps
    asked = ask.ready(run, judge, judges)

    def said_of(solution: Solution, said: Judgement | programs.Failure, spent: int) -> Judgement:
        if isinstance(said, programs.Failure):
            return not_judged(solution, judge, said.message, generated_tokens=spent)
        said = ask.decided(said, judges.threshold)
        if said.failure or not solution.steps:
            return said
        untold = judge not in _WRITE_OF_ANSWERS and said.outcome is None
        if reads_steps and judge not in _WRITE_OF_STEPS:
            untold = untold or any(step.label is None and not step.missed for step in said.steps)
        why = "the judge came to no word on the answer or on a step"
        return (
            not_judged(solution, judge, why, said.text, said.prompt_tokens, said.generated_tokens) if untold else said
        )

    def judge_groups(name: str, groups: Sequence[tuple[Problem, Sequence[Solution]]]) -> list[list[Judgement]]:
        cases = {
            f"{name}/{place:04d}/{solution.id}": Case(problem, solution, gold.get(problem.id))
            for place, (problem, solutions) in enumerate(groups)
            for solution in solutions
        }
        started = ((program_id, functools.partial(asked.start, case)) for program_id, case in cases.items())
        found = dict(programs.run(asked.engines, started, spent := _Spent()))
        judged = iter([said_of(case.solution, found[i], spent.tokens[i]) for i, case in cases.items()])
        return [[next(judged) for _ in solutions] for _, solutions in groups]

    return judge_groups


# solve_tests, judge_answers, online_rl


@dataclasses.dataclass(frozen=True)
class Rewarded:
    """By which reward a policy was trained, and who has paid."""

    reward: str = "process_aware"
    judge: str = "verify"


def solve_tests(run: Run, engine: EngineSettings, solve: SolveSettings, grpo: Rewarded) -> list[str]:
    """One solution of every test and held-out problem by the reward's policy, at temperature 0."""
    policy = load_to_ask(run, Model(f"policies/{grpo.reward}/export"))
    label = STAGES["solve_tests"].label("solve_tests", {"grpo": vars(grpo)})
    return policies.solve(run, label, policy, engine, solve, grpo.reward)


def judge_answers(run: Run, judges: ask.Judges, grpo: Rewarded) -> list[str]:
    """What the judge that paid the policy says of its solutions now; nothing where the reward asks no judge."""
    kind = _answers_kind(grpo)
    judged: list[Judgement] = []
    if REWARDS[grpo.reward].verdicts == "judge":
        problems = {problem.id: problem for problem in run.work.read("problems")}
        gold = {one.problem_id: one for one in run.work.read("gold")}
        cases = [
            Case(problems[s.problem_id], s, gold[s.problem_id])
            for s in run.work.read(f"solutions/{grpo.reward}")
            if s.steps
        ]
        stage = STAGES["judge_answers"].label("judge_answers", {"grpo": vars(grpo)})
        judged = ask.ask(run, stage, ask.ready(run, grpo.judge, judges), cases, f"policy_{grpo.reward}")
    run.work.write(kind, judged)
    return [f"{kind}.jsonl"]


def _answers_kind(how: Rewarded | OnlineRL) -> str:
    """The judgements of the policy's solutions, as a kind of records."""
    return f"judgements/policy_{how.reward}"


def online_rl(
    run: Run,
    models: Rewarding,
    solve: SolveSettings,
    grpo: OnlineRL,
    generative: GenerativeSettings,
    threshold: float = ask.Judges.threshold,
) -> list[str]:
    """metrics.json of the reward: how its policy was trained, how it solves, and what its judge says of that."""
    reward = grpo.reward
    rows = [row for _, row in read_lines(run.work.path / f"policies/{reward}/checkpoints/steps.jsonl", loop.step_row)]
    measured: dict[str, Any] = {
        "reward": reward,
        "verifier": models.generative.path,
        "training": run.work.read_json(f"policies/{reward}/training.json"),
        "course": watch.course(rows, grpo.prompts * grpo.samples),
        **policies.figures(run, reward),
        "approvals": _approvals(run, grpo, threshold),
    }
    settings = dict(solve=solve, grpo=grpo, generative=generative)
    return write_cell(run, f"policies/{reward}", models, settings, measured)


def _approvals(run: Run, how: OnlineRL, threshold: float) -> dict[str, Any] | None:
    """`approvals` of the solutions to test problems that have steps, None where the reward asks no judge."""
    if REWARDS[how.reward].verdicts != "judge":
        return None
    said = {judgement.solution_id: judgement for judgement in run.work.read(_answers_kind(how))}
    gold = {one.problem_id: one for one in run.work.read("gold")}
    solutions = [
        s for s in run.work.read(f"solutions/{how.reward}") if s.id in said and splits.split_of(s.problem_id) == "test"
    ]
    decided = [ask.decided(said[s.id], threshold) for s in solutions]
    return approvals(solutions, decided, [is_correct(run.task, gold[s.problem_id], s) for s in solutions])


_RECORDS = ("problems.jsonl", "gold.jsonl")
_REWARD = ("grpo.reward",)

STAGES = {
    "grpo": Stage(train_policy, _RECORDS, per=_REWARD),
    "solve_tests": Stage(solve_tests, ("problems.jsonl", "policies/{grpo[reward]}/export"), per=_REWARD),
    "judge_answers": Stage(judge_answers, (*_RECORDS, "solutions/{grpo[reward]}.jsonl"), per=_REWARD),
    "online_rl": Stage(
        online_rl,
        needs=(
            *_RECORDS,
            "solutions/{grpo[reward]}.jsonl",
            "judgements/policy_{grpo[reward]}.jsonl",
            "policies/{grpo[reward]}/checkpoints/steps.jsonl",
        ),
        derived=True,
        per=_REWARD,
    ),
}

PIPELINE = {"load_problems": prm.STAGES["load_problems"], **STAGES}
