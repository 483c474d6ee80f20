"""Online reinforcement learning: a policy is paid by a judge for what it samples (SPARK, arXiv 2512.03244, stage III).

grpo  train problems, a judge or a control, from the generator
      -> problems.jsonl, gold.jsonl, policies/grpo/{checkpoints,export,training.json}

The loop is training/grpo.py. Here are its models and its judge: one of judging.py, asked on an engine of its own, or
one of the controls that ask no model. `config.grpo` has the settings.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from spare_jax import judging, programs, splits
from spare_jax.engines.local import LocalEngine
from spare_jax.judges.outcome import is_correct, outcome, require_answers
from spare_jax.models import huggingface
from spare_jax.records import Gold, Judgement, LabelledSolution, Problem, Solution, not_judged
from spare_jax.run import Run, Stage, progress_bar
from spare_jax.training import format_rules, grpo, loop, losses, watch
from spare_jax.training.advantages import REWARDS, coin, vote


def train_policy(run: Run) -> list[str]:
    """The stage: train the generator by `config.grpo`, and export it."""
    how, loaded = run.config.grpo, splits.load(run.config)
    run.work.write("problems", loaded.problems)
    run.work.write("gold", loaded.gold)
    gold = {one.problem_id: one for one in loaded.gold}
    problems = [p for p in loaded.problems if splits.split_of(p.id) == "train"]
    held_out = [p for p in loaded.problems if splits.split_of(p.id) == "dev"][: how.watch_problems]
    config = grpo_config(run)
    start = run.load_to_train("generator", how.lora, how.train.dtype)
    # What is sampled with is what is trained, so nothing of it is quantized for the engine alone.
    engine = run.with_settings({"engine.quantize": ""}).engine(start, how.max_tokens)
    assert isinstance(engine, LocalEngine)  # load_to_train refuses a server
    digest = huggingface.tokenizer_digest(start.tokenizer)
    policy = grpo.Policy(run.task, start.tokenizer, digest, format_rules.rules_of(run.task))
    directory = "policies/grpo"
    checkpoints = run.work.path / directory / "checkpoints"
    with progress_bar(config.iterations, f"grpo {how.reward}", "iteration") as bar:

        def progress(iteration: int, iterations: int, metrics: Mapping[str, float]) -> None:
            bar.update(iteration - bar.n)
            bar.set_postfix({name: f"{metrics[name]:.3g}" for name in ("reward", "valid", "kl")}, refresh=False)

        result = grpo.train(
            config, start.model, engine, policy, problems, judge_of(run, gold), checkpoints, run.mesh, held_out,
            lambda solution: is_correct(run.task, gold[solution.problem_id], solution), progress,
        )  # fmt: skip
    said = {key: getattr(result, key) for key in ("iterations", "rollbacks", "stopped_by")}
    run.work.write_json(f"{directory}/training.json", said)
    exported = run.export(directory, result.model, start)
    return ["problems.jsonl", "gold.jsonl", *exported, f"{directory}/training.json"]


def grpo_config(run: Run) -> grpo.GRPOConfig:
    """`config.grpo` as a GRPOConfig, with the run's seed."""
    how = run.config.grpo.to_dict()
    for key in ("judge", "watch_problems", "lora"):
        del how[key]
    how["loss"] = losses.GRPOLoss(**how["loss"], max_tokens=how["max_tokens"])
    how["alarms"] = tuple(watch.Alarm(**alarm) for _, alarm in sorted(how["alarms"].items()))
    how["train"] = loop.TrainConfig(seed=run.config.seed, **how["train"])
    return grpo.GRPOConfig(**how)


def judge_of(run: Run, gold: Mapping[str, Gold]) -> grpo.Judge:
    """Who pays, by the reward of `config.grpo`: its judge, the comparison with the gold answer, a coin, or a vote.

    Raises:
      ValueError: there is no such reward, or no such judge.
    """
    how = run.config.grpo
    if how.reward not in REWARDS:
        raise ValueError(f"config.grpo.reward={how.reward!r} is unknown: choose among {', '.join(REWARDS)}")
    verdicts = REWARDS[how.reward].verdicts
    if verdicts == "judge":
        return _asked(run, how.judge, gold)
    if verdicts == "vote":
        return lambda name, groups: [vote(problem.id, solutions, run.config.seed) for problem, solutions in groups]

    def by_itself(name: str, solution: Solution) -> Judgement:
        if verdicts == "coin":
            return coin(run.config.seed, solution, name)
        require_answers(gold[solution.problem_id], "rlvr")
        return outcome(run.task, gold[solution.problem_id], solution)

    return lambda name, groups: [[by_itself(name, solution) for solution in solutions] for _, solutions in groups]


def _asked(run: Run, judge: str, gold: Mapping[str, Gold]) -> grpo.Judge:
    """A judge of judging.py, whose engines stay up. What it could not judge has a judgement that says why."""
    start, engines = judging.begin(run, judge)

    def ask(name: str, groups: Sequence[tuple[Problem, Sequence[Solution]]]) -> list[list[Judgement]]:
        items = {
            f"{name}/{place:04d}/{solution.id}": LabelledSolution(
                problem, solution, not_judged(solution, judge, ""), gold.get(problem.id)
            )
            for place, (problem, solutions) in enumerate(groups)
            for solution in solutions
        }
        started = ((program_id, functools.partial(start, item)) for program_id, item in items.items())
        found = dict(programs.run(engines, started, grpo.Unwritten()))
        judged = iter([_read(item.solution, judge, found[i], run.config.threshold) for i, item in items.items()])
        return [[next(judged) for _ in solutions] for _, solutions in groups]

    return ask


def _read(solution: Solution, judge: str, said: Judgement | programs.Failure, threshold: float) -> Judgement:
    """A judgement with a label per step and an outcome, where its judge gives scores alone: from `threshold` on a step
    is right, and the last step's score is the solution's."""
    if isinstance(said, programs.Failure):
        return not_judged(solution, judge, said.message)
    labels, scored = judging.labels_of(said, threshold), said.steps and said.steps[-1].label is None
    steps = tuple(dataclasses.replace(step, label=label) for step, label in zip(said.steps, labels, strict=True))
    by_score = said.outcome is None and scored and said.steps[-1].score is not None
    return dataclasses.replace(said, steps=steps, outcome=labels[-1] if by_score else said.outcome)


PIPELINE = ("grpo",)

_JUDGES = ("annotate", "verify", "generative", "rollouts", "flips", "threshold")  # settings of judges

STAGES = {"grpo": Stage(train_policy, ("seed", "task", "data", "models", "engine", "mesh", "grpo", *_JUDGES))}
