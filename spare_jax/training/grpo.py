"""GRPO with process rewards (SPARK, arXiv 2512.03244, stage III; GRPO: arXiv 2402.03300): sample, judge, update.

The engine samples with the very arrays that training made (`LocalEngine.update_weights`), so there is one set of
weights, on one mesh. How far the engine's log-probabilities are from training's is measured in every iteration
("engine_gap").

An iteration is a pure function of parameters, optimiser state, seed and its own number: its problems, the key of every
token and the order of its rows follow from these. So a run that is killed and started again ends in the same bits.
Samples are drawn at temperature 1 without top-p or top-k. The loss needs the log-probability with which a token was
drawn, and the engine stores the model's own: only so are the two the same.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spare_jax import programs
from spare_jax.engines.local import LocalEngine
from spare_jax.models import adapters, decoder, sharding
from spare_jax.models.rows import ROW_AXES
from spare_jax.prompts.chat import encode_chat, end_ids
from spare_jax.prompts.solve import decode, render
from spare_jax.records import Judgement, Problem, Solution
from spare_jax.solvers.sample import SolveSettings, solutions
from spare_jax.training import batches, format_rules, loop, losses, watch
from spare_jax.training.advantages import BASELINES, REWARDS, Advantages, Graded, Reward, advantages
from spare_jax.training.checkpoints import Checkpoints
from spare_jax.training.setup import TrainConfig, on_devices, set_up, to_devices

if TYPE_CHECKING:
    from spare_jax.prompts.chat import Tokenizer
    from spare_jax.tasks.task import Task

# (name of this asking, groups of solutions by their problems) -> a judgement for every solution, in their order, which
# says why where there is none (`Judgement.failure`). The name differs from asking to asking, and is the same where a
# killed run asks again.
Judge = Callable[[str, Sequence[tuple[Problem, Sequence[Solution]]]], Sequence[Sequence[Judgement]]]

# (iterations that have ended, iterations in all, metrics of the last one); see `train`.
Progress = Callable[[int, int, watch.Metrics], None]


@dataclasses.dataclass(frozen=True)
class GRPOConfig:
    """Settings of a run; defaults are SPARK's where it gives them.

    An iteration samples `samples` solutions of each of `prompts` problems, of `max_tokens` tokens at most, and takes
    `updates` steps on all of them (1: on-policy). `reward` and `baseline` name one of advantages.py each; `least_steps`
    and `most_steps`, where given, replace the reward's own limits. `loss` is the objective; the names of `alarms` are
    free. Every `watch_every` iterations the reward is compared with the truth on held-out problems. `train` gives
    row_length, accumulate, optimizer, learning_rate (which stays constant), weight_decay, clip, seed, dtype and remat;
    the rest of it is not read.
    """

    iterations: int = 200
    prompts: int = 256
    samples: int = 16
    max_tokens: int = 2048
    updates: int = 1
    reward: str = "process_aware"
    baseline: str = "grpo"
    least_steps: int | None = None
    most_steps: int | None = None
    loss: losses.GRPOLoss = dataclasses.field(default_factory=losses.GRPOLoss)
    alarms: Mapping[str, watch.Alarm] = dataclasses.field(default_factory=dict)
    watch_every: int = 10
    checkpoint_every: int = 10
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(row_length=4096, learning_rate=1e-6, clip=1.0)
    )

    def __post_init__(self):
        for name in ("iterations", "prompts", "samples", "max_tokens", "updates", "watch_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"grpo: {name}={getattr(self, name)}: set it to 1 or more")
        if self.reward not in REWARDS:
            raise ValueError(f"grpo: reward={self.reward!r} is unknown: choose among {', '.join(REWARDS)}")
        if self.baseline not in BASELINES:
            raise ValueError(f"grpo: baseline={self.baseline!r} is unknown: choose among {', '.join(BASELINES)}")

    @property
    def reward_rule(self) -> Reward:
        """The reward with this config's limits."""
        limits = {name: getattr(self, name) for name in ("least_steps", "most_steps")}
        given = {name: limit for name, limit in limits.items() if limit is not None}
        return dataclasses.replace(REWARDS[self.reward], **given)


@dataclasses.dataclass(frozen=True)
class Policy:
    """What a policy writes: solutions of a task, in tokens of a tokenizer (with its digest), in the form that the rules
    of V check."""

    task: "Task"
    tokenizer: "Tokenizer"
    digest: str
    rules: format_rules.FormatRules


@dataclasses.dataclass(frozen=True)
class Rollout:
    """A sampled solution, the prompt that it answers, and the log-probability in nats with which each of its tokens was
    sampled."""

    solution: Solution
    prompt: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class GRPOResult:
    """What a run ends with. `stopped_by` is the metric whose alarm stopped it, empty where none did. Of the sampled
    solutions `judged` counts those with a judgement and `failed` those without; held-out problems are left out."""

    model: decoder.Decoder
    iterations: int
    rollbacks: int
    stopped_by: str
    judged: int
    failed: int


@dataclasses.dataclass
class _Position:
    """Where a run stands: all that a checkpoint holds beside parameters and optimiser state."""

    iteration: int = 0
    rollbacks: int = 0
    judged: int = 0
    failed: int = 0


def train(
    config: GRPOConfig,
    model: decoder.Decoder,
    engine: LocalEngine,
    policy: Policy,
    problems: Sequence[Problem],
    judge: Judge,
    directory: str | pathlib.Path,
    mesh: Mesh,
    held_out: Sequence[Problem] = (),
    is_correct: Callable[[Solution], bool | None] | None = None,
    progress: Progress | None = None,
) -> GRPOResult:
    """Train a copy of `model`, or of its adapters where it has some. `model` as it is given is the reference of the KL.
    Where `directory` holds a checkpoint the run goes on from it.

    Args:
      engine: made for a decoder like `model`; it is handed each iteration's parameters.
      problems: in any order.
      judge: asked for all solutions of an iteration at once. A solution that it could not judge is not learnt from.
      held_out: problems on which the reward is compared with the truth.
      is_correct: the truth of a solution of these, None where it is not known.
      directory: gets `latest/`; `steps.jsonl`, one row of metrics per iteration (watch.py; of the updates the mean
        loss, the last grad_norm, kl and clipped, and engine_gap; entropy, the sampled estimate in nats per token; null
        in an iteration without updates, since nothing was judged); and `seconds.jsonl`, what an iteration's parts took.
      progress: called with (iteration, iterations, metrics).

    Raises:
      ValueError: there are no problems, a prompt and its solution may exceed a row, the checkpoint is another model's,
        an alarm whose action is "abort" went off, or not one solution of the run was judged. The last two name the
        judge's reason; the same run started again goes on from the last checkpoint, which was saved before.
      FloatingPointError: a loss or gradient norm is not finite; names the iteration, and saves nothing after it.
    """
    if not problems:
        raise ValueError("grpo: no problems to sample solutions of: raise config.data.train_problems")
    problems, held_out = (sorted(some, key=lambda problem: problem.id) for some in (problems, held_out))
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    reward, settings = config.reward_rule, config.train
    row_counts = _row_counts(config, policy, [*problems, *held_out], mesh)
    setup = set_up(settings, model, config.loss, optax.constant_schedule(settings.learning_rate), mesh)
    reference_step = jax.jit(
        functools.partial(losses.token_logps, dtype=jnp.dtype(settings.dtype)),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )

    # The mesh is in force where training computes, and not where the engine does, which has its own.
    with Checkpoints(directory, keep=2) as checkpoints:
        reference = jax.device_put(model, sharding.shardings_of(model, mesh)) if config.loss.kl_weight else None
        trained, state, frozen = setup.place(model)
        key, position = jax.random.key(settings.seed), _Position()
        alarms = watch.Alarms([alarm for _, alarm in sorted(config.alarms.items())])
        if (saved := checkpoints.progress()) is not None:
            position = _Position(**saved)
            trained, state = checkpoints.restore((trained, state))
        else:
            checkpoints.save(0, (trained, state), dataclasses.asdict(position))  # an alarm may go off at once
        log = loop.StepLog(directory / "steps.jsonl", position.iteration)
        timings = loop.StepLog(directory / "seconds.jsonl", position.iteration)
        stopped_by = ""

        while position.iteration < config.iterations and not stopped_by:
            iteration, clock = position.iteration, _Clock()
            engine.update_weights(adapters.join(trained, frozen))
            drawn = [problems[i] for i in batches.rows_of_step(len(problems), config.prompts, settings.seed, iteration)]
            rollouts = sample(engine, policy, f"{iteration:06d}", drawn, config.samples, config.max_tokens)
            clock.lap("sample")

            graded = grade(policy, rollouts, judge(f"{iteration:06d}", _solutions(drawn, rollouts)))
            gains = [advantages(reward, group, config.baseline) for group in graded]
            metrics = watch.of_solutions(graded, gains, reward.reads_steps)
            unjudged = [one.judgement.failure for group in graded for one in group if not one.judged]
            if held_out and is_correct and iteration % config.watch_every == 0:
                metrics |= _against_truth(config, engine, policy, judge, iteration, held_out, is_correct)
            clock.lap("reward")

            samples, measured = _to_learn(rollouts, graded, gains), []
            packed = batches.pack_samples(samples, settings.row_length, row_counts)
            # Without samples there is no step: the optimiser's momentum alone would move the parameters.
            updates = config.updates if samples else 0
            with jax.set_mesh(mesh):
                if reference is not None and samples:
                    packed = _with_reference(reference_step, reference, packed, settings, mesh)
                batch = to_devices(packed.arrays, mesh, settings.accumulate)
                # A step donates the parameters that the engine holds: it has sampled, and is renewed before it does so
                # again.
                for update in range(updates):
                    step = iteration * config.updates + update
                    trained, state, step_metrics = setup.step(trained, state, frozen, batch, key, step)
                    measured.append(step_metrics)
            metrics |= _of_updates(jax.device_get(measured), packed, iteration)
            clock.lap("update")
            gone_off = alarms.hear(metrics)

            position.iteration += 1
            position.judged += sum(len(group.rewards) for group in gains)
            position.failed += len(unjudged)
            log.write({"step": position.iteration, **metrics})
            timings.write({"step": position.iteration, **clock.seconds})
            if progress:
                progress(position.iteration, config.iterations, metrics | clock.seconds)
            stopped_by = next((alarm.metric for alarm in gone_off if alarm.action == "stop"), "")
            if aborts := next((alarm for alarm in gone_off if alarm.action == "abort"), None):
                raise ValueError(_aborted(aborts, unjudged))
            if not position.judged and (stopped_by or position.iteration == config.iterations):
                raise ValueError(
                    f"grpo: not one of {position.failed} solutions was judged, so there is nothing to export "
                    f"({unjudged[-1]}): mend the cause and run the same command to go on"
                )
            if alarms.doubts_policy and iteration:
                checkpoints.drop(iteration)  # the weights that this iteration sampled with: the alarm is about them
            if gone_off:
                trained, state = checkpoints.restore((trained, state))
                position.rollbacks += not stopped_by
                alarms.reset()
            # Nothing is saved while an alarm counts: it goes back to the weights from before it began to.
            due = position.iteration % config.checkpoint_every == 0 and not alarms.counting
            if not stopped_by and (due or gone_off or position.iteration == config.iterations):
                checkpoints.save(position.iteration, (trained, state), dataclasses.asdict(position))
    model, ended = adapters.join(trained, frozen), position
    return GRPOResult(model, ended.iteration, ended.rollbacks, stopped_by, ended.judged, ended.failed)


def sample(
    engine: LocalEngine, policy: Policy, name: str, problems: Sequence[Problem], samples: int, max_tokens: int
) -> list[list[Rollout]]:
    """A group of `samples` rollouts for each problem. Their randomness follows from the engine's seed, `name`, the
    problem's id and its place among the problems, since one may come twice.

    Raises:
      ValueError: a problem could not be answered: its prompt is too long, or the logits are not finite.
    """
    settings = SolveSettings(samples, 1.0, 1.0, max_tokens, policy.digest)
    started = {
        f"{name}/{place:04d}/{problem.id}": functools.partial(_rollouts, policy, problem, settings)
        for place, problem in enumerate(problems)
    }
    results = dict(programs.run({settings.model: engine}, started.items(), Unwritten()))
    for program_id, result in results.items():
        if isinstance(result, programs.Failure):
            raise ValueError(f"grpo: no solutions of {program_id}: {result.message}")
    return [results[program_id] for program_id in started]


def grade(
    policy: Policy, rollouts: Sequence[Sequence[Rollout]], judgements: Sequence[Sequence[Judgement]]
) -> list[list[Graded]]:
    """The groups with their judgements, and the check of each solution's form."""
    stop = end_ids(policy.tokenizer)

    def form(solution: Solution) -> format_rules.FormatCheck:
        text = decode(policy.tokenizer, [token for token in solution.token_ids if token not in stop])
        return format_rules.check(policy.rules, text, solution.finish_reason)

    return [
        [Graded(rollout.solution, judgement, form(rollout.solution)) for rollout, judgement in zip(*pair, strict=True)]
        for pair in zip(rollouts, judgements, strict=True)
    ]


class Unwritten:
    """A journal that keeps nothing: an iteration that a kill interrupts is sampled again, to the same bits."""

    def get(self, request_id: str) -> None:
        """No answer is known."""

    def put(self, request_id: str, completions: tuple[programs.Completion, ...]) -> None:
        """Nothing is kept."""


def _rollouts(policy: Policy, problem: Problem, settings: SolveSettings) -> programs.Program:
    """The program `solvers.sample.solutions`, with the prompts and log-probabilities that training needs."""
    program = solutions(policy.task, problem, policy.tokenizer, settings)
    requests = next(program)
    answers = yield requests
    try:
        program.send(answers)
    except StopIteration as stop:
        prompt = requests[0].all_ids()
        return [Rollout(s, prompt, c.logprobs) for s, c in zip(stop.value, answers[0], strict=True)]
    raise AssertionError("a policy asks once")


def _solutions(
    problems: Sequence[Problem], rollouts: Sequence[Sequence[Rollout]]
) -> list[tuple[Problem, list[Solution]]]:
    return [(p, [rollout.solution for rollout in group]) for p, group in zip(problems, rollouts, strict=True)]


def _against_truth(
    config: GRPOConfig,
    engine: LocalEngine,
    policy: Policy,
    judge: Judge,
    iteration: int,
    held_out: Sequence[Problem],
    is_correct: Callable[[Solution], bool | None],
) -> dict[str, float | None]:
    """`watch.disagreement` between the reward and the truth, over one solution of each held-out problem, or a group of
    them where the reward is a vote. A solution counts as paid where its reward is more than 0.5."""
    name, samples = f"{iteration:06d}-held_out", config.samples if config.reward_rule.verdicts == "vote" else 1
    rollouts = sample(engine, policy, name, held_out, samples, config.max_tokens)
    graded = grade(policy, rollouts, judge(name, _solutions(held_out, rollouts)))
    rewards = itertools.chain(*(advantages(config.reward_rule, group, config.baseline).rewards for group in graded))
    compared = [one for group in graded for one in group]
    paid = [bool(next(rewards) > 0.5) if one.judged else None for one in compared]
    return watch.disagreement(paid, [is_correct(one.solution) for one in compared])


def _aborted(alarm: watch.Alarm, unjudged: Sequence[str]) -> str:
    side = "below" if alarm.below else "above"
    why = f" (the judge's last reason: {unjudged[-1]})" if unjudged else ""
    return (
        f"grpo: {alarm.metric} was {side} {alarm.threshold:g} in {alarm.patience} iterations in a row{why}, and "
        "nothing is exported: mend the cause and run the same command to go on"
    )


def _row_counts(config: GRPOConfig, policy: Policy, problems: Sequence[Problem], mesh: Mesh) -> list[int]:
    """The numbers of rows that an update may have, so that its step is compiled for few shapes: eighths of the number
    that holds the longest samples, each rounded up to whole microbatches on every device."""
    prompts = (encode_chat(policy.tokenizer, render(policy.task, problem)) for problem in problems)
    longest = max(map(len, prompts)) + config.max_tokens
    rows = batches.rows_for(config.prompts * config.samples, longest, config.train.row_length)
    unit = config.train.accumulate * math.prod(mesh.shape[axis] for axis in ROW_AXES)
    return sorted({math.ceil(rows * part / 8 / unit) * unit for part in range(1, 9)})


def _to_learn(
    rollouts: Sequence[Sequence[Rollout]], graded: Sequence[Sequence[Graded]], gains: Sequence[Advantages]
) -> list[batches.Sampled]:
    """The judged rollouts of the groups that have two or more of them, with the advantages of their tokens."""
    return [
        batches.Sampled(rollout.prompt, rollout.solution.token_ids, rollout.logprobs, of_tokens)
        for group, grades, advantage in zip(rollouts, graded, gains, strict=True)
        for rollout, one, of_tokens in zip(group, grades, advantage.tokens, strict=True)
        if one.judged and len(advantage.rewards) > 1
    ]


def _with_reference(
    step: Callable[[decoder.Decoder, losses.Batch], jax.Array],
    reference: decoder.Decoder,
    packed: batches.Packed,
    settings: TrainConfig,
    mesh: Mesh,
) -> batches.Packed:
    """The rows with `reference_logps`, 0 where nothing was sampled; computed in batches as large as a microbatch."""
    in_order = on_devices(packed, packed.rows // settings.accumulate, mesh)
    logps = np.concatenate(jax.device_get([step(reference, batch) for batch in in_order]))
    return dataclasses.replace(packed, arrays=packed.arrays | {"reference_logps": logps})


def _of_updates(steps: Sequence[Mapping[str, Any]], packed: batches.Packed, iteration: int) -> dict[str, float | None]:
    """The metrics of an iteration from those of its steps, None where it took none. In the first step the parameters
    are still those that sampled, so its log-ratio is the engine's deviation from training."""
    if not steps:
        return dict.fromkeys(("loss", "grad_norm", "kl", "clipped", "engine_gap", "entropy"))
    metrics: dict[str, float | None] = {
        "loss": float(np.mean([step["loss"] for step in steps])),
        "grad_norm": float(steps[-1]["grad_norm"]),
        "kl": float(steps[-1]["kl"]),
        "clipped": float(steps[-1]["clipped"]),
        "engine_gap": float(steps[0]["log_ratio"]),
        "entropy": float(-packed.arrays["sampled_logps"].sum(dtype=np.float64) / packed.counts.targets),
    }
    if not all(math.isfinite(step[name]) for step in steps for name in ("loss", "grad_norm")):
        raise FloatingPointError(
            f"loss {metrics['loss']}, gradient norm {metrics['grad_norm']} in iteration {iteration + 1}: not going on; "
            "lower config.grpo.train.learning_rate or look at the samples of this iteration"
        )
    return metrics


class _Clock:
    """Seconds of the parts of an iteration."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, part: str) -> None:
        """The part that has ended."""
        now = time.perf_counter()
        self.seconds[f"seconds/{part}"], self._since = round(now - self._since, 4), now
