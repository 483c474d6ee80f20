"""GRPO with process rewards (SPARK, arXiv 2512.03244, stage III; GRPO: arXiv 2402.03300): sample, judge, update.

The engine samples with the very arrays that training made (`LocalEngine.update_weights`): one set of weights, on one
mesh, and no second program whose log-probabilities are slightly others. That they agree is measured in every iteration
("engine_gap"), not assumed.

An iteration is a pure function of parameters, optimiser state, seed and its own number: its problems, the key of every
token and the order of its rows follow from these. So a run that is killed and started again ends in the same bits.
Samples are drawn at temperature 1 without filters, as the ratios need it: the stored log-probabilities are the model's
own, and under another temperature they would not be those of what was drawn.
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
from spare_jax.training import batches, format_rules, loop, losses, optimizer, watch
from spare_jax.training.advantages import BASELINES, REWARDS, Advantages, Graded, Reward, advantages
from spare_jax.training.checkpoints import Checkpoints

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
    and `most_steps` stand in for the reward's own limits. `loss` is the objective. `alarms` have names of one's own.
    Every `watch_every` iterations the reward is compared with the truth on held-out problems. Of `train` are read
    row_length, accumulate, optimizer, learning_rate (which is constant), weight_decay, clip, seed, dtype and remat;
    accumulate cuts an update's rows into microbatches.
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
    train: loop.TrainConfig = dataclasses.field(
        default_factory=lambda: loop.TrainConfig(row_length=4096, learning_rate=1e-6, clip=1.0)
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
    """What a policy is asked for, and in what form: task, tokenizer with its digest, and rules of V."""

    task: "Task"
    tokenizer: "Tokenizer"
    digest: str
    rules: format_rules.FormatRules


@dataclasses.dataclass(frozen=True)
class Rollout:
    """A sampled solution with the prompt that it answers and its tokens' log-probabilities, in nats, when sampled."""

    solution: Solution
    prompt: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class GRPOResult:
    """What a run ends with. `stopped_by` is the metric whose alarm stopped it, empty where none did. Of the solutions
    that were sampled to learn from so many were `judged`, and `failed` were not."""

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
    """Train a copy of `model`, or of its adapters, which is also the reference; go on from the checkpoint where
    `directory` holds one.

    Args:
      engine: made for a decoder like `model`; it is handed each iteration's parameters.
      problems: in any order.
      judge: asked for all solutions of an iteration at once. What it could not judge is no part of an update.
      held_out, is_correct: problems on which the reward is compared with the truth, which `is_correct` knows, or does
        not (None).
      directory: gets `latest/`, `steps.jsonl`, one row of metrics per iteration (watch.py; of the updates the mean
        loss, the last grad_norm, kl and clipped, and engine_gap; entropy, the sampled estimate in nats per token; null
        where nothing was judged, which makes no update), and `seconds.jsonl`, what an iteration's parts took.
      progress: called with (iteration, iterations, metrics).

    Raises:
      ValueError: there are no problems, a prompt and its solution may exceed a row, the checkpoint is another model's,
        an alarm whose action is "abort" went off, or not one solution of the run was judged. The last two name the
        judge's reason; a run that is begun again goes on from the last checkpoint, which is from before it.
      FloatingPointError: a loss or gradient norm is not finite; names the iteration, and saves nothing after it.
    """
    if not problems:
        raise ValueError("grpo: no problems to sample solutions of: raise config.data.train_problems")
    problems, held_out = (sorted(of, key=lambda problem: problem.id) for of in (problems, held_out))
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    reward, how = config.reward_rule, config.train
    row_counts = _row_counts(config, policy, [*problems, *held_out], mesh)
    tx = optimizer.OPTIMIZERS[how.optimizer](optax.constant_schedule(how.learning_rate), how.weight_decay, how.clip)

    replicated, batch_sharding = NamedSharding(mesh, PartitionSpec()), loop.batch_sharding_of(mesh)
    shardings = sharding.shardings_of(model, mesh)
    trained, frozen = adapters.split(model)
    trained_shardings, frozen_shardings = adapters.split(model, shardings)
    init_state = functools.partial(optimizer.init_state, tx)
    state_shardings = sharding.shard_moments(jax.eval_shape(init_state, trained), trained_shardings, mesh)
    train_step = loop.make_train_step(how, config.loss, tx, trained_shardings, state_shardings, replicated)
    reference_step = jax.jit(
        functools.partial(losses.token_logps, dtype=jnp.dtype(how.dtype)), out_shardings=replicated
    )

    # The mesh is in force where training computes, and not where the engine does, which has its own.
    with Checkpoints(directory, keep=2) as checkpoints:
        with jax.set_mesh(mesh):
            reference = jax.device_put(model, shardings) if config.loss.kl_weight else None
            trained, frozen = loop.place(trained, trained_shardings), jax.device_put(frozen, frozen_shardings)
            state = jax.jit(init_state, out_shardings=state_shardings)(trained)
        key, position, alarms = (
            jax.random.key(how.seed),
            _Position(),
            watch.Alarms([alarm for _, alarm in sorted(config.alarms.items())]),
        )
        if (saved := checkpoints.progress()) is not None:
            position = _Position(**saved)
            trained, state = checkpoints.restore((trained, state), (trained_shardings, state_shardings))
        else:
            checkpoints.save(0, (trained, state), dataclasses.asdict(position))  # an alarm may go off at once
        log = loop.StepLog(directory / "steps.jsonl", position.iteration)
        timings = loop.StepLog(directory / "seconds.jsonl", position.iteration)
        stopped_by = ""

        while position.iteration < config.iterations and not stopped_by:
            iteration, clock = position.iteration, _Clock()
            engine.update_weights(adapters.join(trained, frozen))
            chosen = batches.rows_of_step(len(problems), config.prompts, how.seed, iteration)
            asked = [problems[i] for i in chosen]
            rollouts = sample(engine, policy, f"{iteration:06d}", asked, config.samples, config.max_tokens)
            clock.lap("sample")

            judged = judge(f"{iteration:06d}", _solutions(asked, rollouts))
            graded = grade(policy, rollouts, judged)
            found = [advantages(reward, group, config.baseline) for group in graded]
            metrics = watch.of_solutions(graded, found, reward.reads_steps)
            unjudged = [one.judgement.failure for group in graded for one in group if not one.judged]
            if held_out and is_correct and iteration % config.watch_every == 0:
                metrics |= _against_truth(config, engine, policy, judge, iteration, held_out, is_correct)
            clock.lap("reward")

            learnt, seen = _judged(rollouts, graded, found), []
            packed = batches.pack_samples(learnt, how.row_length, row_counts)
            updates = config.updates if learnt else 0  # no step without samples: the optimiser's momentum would take it
            with jax.set_mesh(mesh):
                if reference is not None and learnt:
                    packed = _with_reference(reference_step, reference, packed, how, batch_sharding)
                batch = loop.to_devices(packed.arrays, how.accumulate, batch_sharding)
                for update in range(updates):  # these donate what the engine reads: it is done, and renewed next
                    step = iteration * config.updates + update
                    trained, state, measured = train_step(trained, state, frozen, batch, key, step)
                    seen.append(measured)
            metrics |= _of_updates(jax.device_get(seen), packed, iteration)
            clock.lap("update")
            rung = alarms.hear(metrics)

            position.iteration += 1
            position.judged += sum(len(of.rewards) for of in found)
            position.failed += len(unjudged)
            log.write({"step": position.iteration, **metrics})
            timings.write({"step": position.iteration, **clock.seconds})
            if progress:
                progress(position.iteration, config.iterations, metrics | clock.seconds)
            stopped_by = next((alarm.metric for alarm in rung if alarm.action == "stop"), "")
            if aborts := next((alarm for alarm in rung if alarm.action == "abort"), None):
                raise ValueError(_aborted(aborts, unjudged))
            if not position.judged and (stopped_by or position.iteration == config.iterations):
                raise ValueError(
                    f"grpo: not one of {position.failed} solutions was judged, so there is nothing to export "
                    f"({unjudged[-1]}): mend the cause and run the same command to go on"
                )
            if alarms.doubts_policy and iteration:
                checkpoints.drop(iteration)  # what this iteration has sampled with is not as it should be
            if rung:
                trained, state = checkpoints.restore((trained, state), (trained_shardings, state_shardings))
                position.rollbacks += not stopped_by
                alarms.reset()
            # While an alarm counts nothing is saved either: what it goes back to has to be what was before.
            due = position.iteration % config.checkpoint_every == 0 and not alarms.counting
            if not stopped_by and (due or rung or position.iteration == config.iterations):
                checkpoints.save(position.iteration, (trained, state), dataclasses.asdict(position))
    model, ended = adapters.join(trained, frozen), position
    return GRPOResult(model, ended.iteration, ended.rollbacks, stopped_by, ended.judged, ended.failed)


def sample(
    engine: LocalEngine, policy: Policy, name: str, problems: Sequence[Problem], samples: int, max_tokens: int
) -> list[list[Rollout]]:
    """A group of rollouts for each problem. `name` keys their randomness beside the engine's seed, with the place of
    the problem, which may come twice, and its id.

    Raises:
      ValueError: a problem could not be answered: its prompt is too long, or the logits are not finite.
    """
    settings = SolveSettings(samples, 1.0, 1.0, max_tokens, policy.digest)
    started = {
        f"{name}/{place:04d}/{problem.id}": functools.partial(_rollouts, policy, problem, settings)
        for place, problem in enumerate(problems)
    }
    found = dict(programs.run({settings.model: engine}, started.items(), Unwritten()))
    for program_id, result in found.items():
        if isinstance(result, programs.Failure):
            raise ValueError(f"grpo: no solutions of {program_id}: {result.message}")
    return [found[program_id] for program_id in started]


def grade(
    policy: Policy, rollouts: Sequence[Sequence[Rollout]], judged: Sequence[Sequence[Judgement]]
) -> list[list[Graded]]:
    """The groups with their judgements, and the check of each solution's form."""
    stop = end_ids(policy.tokenizer)

    def form(solution: Solution) -> format_rules.FormatCheck:
        text = decode(policy.tokenizer, [token for token in solution.token_ids if token not in stop])
        return format_rules.check(policy.rules, text, solution.finish_reason)

    return [
        [Graded(one.solution, said, form(one.solution)) for one, said in zip(group, judgements, strict=True)]
        for group, judgements in zip(rollouts, judged, strict=True)
    ]


class Unwritten:
    """A journal that keeps nothing: an iteration that a kill interrupts is sampled again, to the same bits."""

    def get(self, request_id: str) -> None:
        """No answer is known."""

    def put(self, request_id: str, completions: tuple[programs.Completion, ...]) -> None:
        """Nothing is kept."""


def _rollouts(policy: Policy, problem: Problem, settings: SolveSettings) -> programs.Program:
    """As `solving.solutions`, with what training needs beside the records."""
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
    """What the reward pays, more than half of the most, of a sample of each held-out problem, beside the truth. A vote
    needs a group of them."""
    name, samples = f"{iteration:06d}-held_out", config.samples if config.reward_rule.verdicts == "vote" else 1
    rollouts = sample(engine, policy, name, held_out, samples, config.max_tokens)
    graded = grade(policy, rollouts, judge(name, _solutions(held_out, rollouts)))
    earned = itertools.chain(*(advantages(config.reward_rule, group, config.baseline).rewards for group in graded))
    compared = [one for group in graded for one in group]
    paid = [bool(next(earned) > 0.5) if one.judged else None for one in compared]
    return watch.disagreement(paid, [is_correct(one.solution) for one in compared])


def _aborted(alarm: watch.Alarm, unjudged: Sequence[str]) -> str:
    side = "below" if alarm.below else "above"
    why = f" (the judge's last reason: {unjudged[-1]})" if unjudged else ""
    return (
        f"grpo: {alarm.metric} was {side} {alarm.threshold:g} in {alarm.patience} iterations in a row{why}, and "
        "nothing is exported: mend the cause and run the same command to go on"
    )


def _row_counts(config: GRPOConfig, policy: Policy, problems: Sequence[Problem], mesh: Mesh) -> list[int]:
    """How many rows an update may have, in whole microbatches on every device: eighths of what suffices for the longest
    samples, since most are shorter. A step is compiled for each that comes up."""
    prompts = (encode_chat(policy.tokenizer, render(policy.task, problem)) for problem in problems)
    longest = max(map(len, prompts)) + config.max_tokens
    rows = batches.rows_for(config.prompts * config.samples, longest, config.train.row_length)
    unit = config.train.accumulate * math.prod(mesh.shape[axis] for axis in ROW_AXES)
    return sorted({math.ceil(rows * part / 8 / unit) * unit for part in range(1, 9)})


def _judged(
    rollouts: Sequence[Sequence[Rollout]], graded: Sequence[Sequence[Graded]], found: Sequence[Advantages]
) -> list[batches.Sampled]:
    """What an update learns from: the rollouts that were judged, with the advantages of their tokens, of the groups
    that have two or more."""
    return [
        batches.Sampled(rollout.prompt, rollout.solution.token_ids, rollout.logprobs, gains)
        for group, judgements, of in zip(rollouts, graded, found, strict=True)
        for rollout, one, gains in zip(group, judgements, of.tokens, strict=True)
        if one.judged and len(of.rewards) > 1
    ]


def _with_reference(
    step: Callable[[decoder.Decoder, losses.Batch], jax.Array],
    reference: decoder.Decoder,
    packed: batches.Packed,
    how: loop.TrainConfig,
    batch_sharding: NamedSharding,
) -> batches.Packed:
    """The rows with `reference_logps`, in the microbatches of an update; 0 where nothing was sampled."""
    in_order = loop.on_devices(packed, packed.rows // how.accumulate, batch_sharding)
    logps = np.concatenate(jax.device_get([step(reference, batch) for batch in in_order]))
    return dataclasses.replace(packed, arrays=packed.arrays | {"reference_logps": logps})


def _of_updates(seen: Sequence[Mapping[str, Any]], packed: batches.Packed, iteration: int) -> dict[str, float | None]:
    """The metrics of an iteration's updates, None where it made none. Before the first of them the parameters are those
    that sampled: what its log-probabilities differ from the stored ones is the engine's doing."""
    if not seen:
        return dict.fromkeys(("loss", "grad_norm", "kl", "clipped", "engine_gap", "entropy"))
    found: dict[str, float | None] = {
        "loss": float(np.mean([row["loss"] for row in seen])),
        "grad_norm": float(seen[-1]["grad_norm"]),
        "kl": float(seen[-1]["kl"]),
        "clipped": float(seen[-1]["clipped"]),
        "engine_gap": float(seen[0]["log_ratio"]),
        "entropy": float(-packed.arrays["sampled_logps"].sum(dtype=np.float64) / packed.counts.targets),
    }
    if not all(math.isfinite(row[name]) for row in seen for name in ("loss", "grad_norm")):
        raise FloatingPointError(
            f"loss {found['loss']}, gradient norm {found['grad_norm']} in iteration {iteration + 1}: not going on; "
            "lower config.grpo.train.learning_rate or look at the samples of this iteration"
        )
    return found


class _Clock:
    """Seconds of the parts of an iteration."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, part: str) -> None:
        """The part that has ended."""
        now = time.perf_counter()
        self.seconds[f"seconds/{part}"], self._since = round(now - self._since, 4), now
