"""One training run, flat: shardings, step, resume, steps with evaluation and checkpoints, best parameters.

The same loop trains language models and reward models, and learns from preferences; loss and rows make the difference.
A run that is killed and started again ends in the same bits as one that was not: rows, dropout and noise follow from
the step number, and nothing else is drawn. Of a model with adapters these alone are trained, saved and known to the
optimiser.
"""

import dataclasses
import functools
import json
import logging
import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spare_jax.keys import unlisted
from spare_jax.models import adapters, decoder, sharding
from spare_jax.models.rows import ROW_AXES
from spare_jax.storage.jsonlines import StoreError, decode, naming, read_json, write_json
from spare_jax.training import batches, losses, optimizer
from spare_jax.training.checkpoints import Checkpoints

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of a run; defaults are those of SPARE (arXiv 2506.15498) where it gives them.

    `batch_rows` rows of `row_length` tokens make one step, in `accumulate` microbatches. The run takes `steps` steps
    or, where that is None, `epochs` passes over the rows. `patience` counts evaluations without a better dev loss.
    `optimizer` is adamw or muon. What is trained and its moments stay float32; `dtype` is what the model computes in,
    and `remat` what it computes again (`decoder.hidden_states`).
    """

    batch_rows: int = 32
    row_length: int = 512
    steps: int | None = unlisted(None)
    epochs: float = 1.0
    accumulate: int = 1
    optimizer: str = unlisted("adamw")
    learning_rate: float = 1e-4
    warmup: float = 0.03
    weight_decay: float = 0.001
    clip: float = 0.3
    eval_every: int = 50
    patience: int = 7
    checkpoint_every: int = 200
    fetch_every: int = unlisted(10)
    seed: int = unlisted(0)
    dtype: str = "float32"
    remat: decoder.Remat = "none"

    def __post_init__(self):
        if self.optimizer not in optimizer.OPTIMIZERS:
            raise ValueError(f"optimizer={self.optimizer!r} is unknown: use {' or '.join(optimizer.OPTIMIZERS)}")
        if self.remat not in get_args(decoder.Remat):
            raise ValueError(f"remat={self.remat!r} is unknown: use {' or '.join(get_args(decoder.Remat))}")


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a run ends with: the model of the best dev loss (of the last step where there is no dev set)."""

    model: decoder.Decoder
    steps: int
    best_step: int
    best_loss: float | None
    stopped_early: bool
    train_counts: batches.PackCounts
    dev_counts: batches.PackCounts
    tokens_per_second: float | None


@dataclasses.dataclass
class _Position:
    """Where a run stands: all that a checkpoint holds beside parameters and optimiser state."""

    step: int = 0
    best_step: int = 0
    best_loss: float | None = None
    bad_evaluations: int = 0


def train(
    config: TrainConfig,
    model: decoder.Decoder,
    loss: losses.Loss,
    train_rows: batches.Packed,
    dev_rows: batches.Packed,
    directory: str | pathlib.Path,
    mesh: Mesh,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a copy of `model`, or of its adapters where it has some (adapters.py); go on from the checkpoint where
    `directory` holds one of the same rows, and begin anew where it is of others, as labels with gaps make them.

    Args:
      train_rows: packed to the config's `row_length`, as the loss reads them (losses.py).
      dev_rows: may be none; then there is neither early stopping nor a best model, and the last is returned.
      directory: gets `latest/`, `best/`, `rows.json` (digests of the rows) and `steps.jsonl`, one row per step (step,
        loss, learning_rate, grad_norm, supervised) and one per evaluation (step, dev_loss).
      progress: called with (step, steps, newest metrics with tokens_per_second) whenever metrics are fetched.

    Raises:
      ValueError: the batch does not divide by the mesh or the microbatches, rows are of another length, or the
        checkpoint is another model's.
      FloatingPointError: a loss or gradient norm is not finite; names the step, and saves nothing after it.
    """
    check_batch(config, mesh)
    for split, rows in (("training", train_rows), ("dev", dev_rows)):
        if rows.arrays["ids"].shape[1] != config.row_length:
            raise ValueError(
                f"{split} rows have {rows.arrays['ids'].shape[1]} tokens and config.row_length={config.row_length}: "
                "pack them to that length"
            )
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    steps = config.steps or max(1, math.ceil(config.epochs * train_rows.rows / config.batch_rows))
    schedule = optimizer.learning_rate_schedule(config.learning_rate, steps, config.warmup)
    learning_rates = np.asarray(jax.vmap(schedule)(jnp.arange(steps)))
    tx = optimizer.OPTIMIZERS[config.optimizer](schedule, config.weight_decay, config.clip)

    replicated, batch_sharding = NamedSharding(mesh, PartitionSpec()), batch_sharding_of(mesh)
    trained, frozen = adapters.split(model)
    trained_shardings, frozen_shardings = adapters.split(model, sharding.shardings_of(model, mesh))
    init_state = functools.partial(optimizer.init_state, tx)
    state_shardings = sharding.shard_moments(jax.eval_shape(init_state, trained), trained_shardings, mesh)
    train_step = make_train_step(config, loss, tx, trained_shardings, state_shardings, replicated)
    eval_step = make_eval_step(config, loss, replicated)

    _drop_of_other_rows(directory, {"train": train_rows.digest, "dev": dev_rows.digest})
    with jax.set_mesh(mesh), Checkpoints(directory) as checkpoints:
        trained, frozen = place(trained, trained_shardings), jax.device_put(frozen, frozen_shardings)
        state = jax.jit(init_state, out_shardings=state_shardings)(trained)
        key = jax.random.key(config.seed)
        position = _Position()
        if (saved := checkpoints.progress()) is not None:
            position = _Position(**saved)
            trained, state = checkpoints.restore((trained, state), (trained_shardings, state_shardings))
        log = StepLog(directory / "steps.jsonl", position.step)
        meter = _Meter()
        pending: list[tuple[int, Mapping[str, jax.Array]]] = []

        while position.step < steps and not _stopped(config, position):
            rows = batches.rows_of_step(train_rows.rows, config.batch_rows, config.seed, position.step)
            batch = batches.take(train_rows, rows)
            trained, state, metrics = train_step(
                trained, state, frozen, to_devices(batch, config.accumulate, batch_sharding), key, position.step
            )
            pending.append((position.step, metrics))
            meter.count(batch)
            position.step += 1
            last = position.step == steps
            evaluate_now = dev_rows.rows > 0 and (last or position.step % config.eval_every == 0)
            save_now = last or position.step % config.checkpoint_every == 0

            # Metrics come to the host seldom, but always before anything is judged or saved: NaN stops here.
            if len(pending) >= config.fetch_every or evaluate_now or save_now:
                newest = _fetch(pending, learning_rates, log) | meter.rate()
                pending = []
                if progress:
                    progress(position.step, steps, newest)
            if evaluate_now:
                model = adapters.join(trained, frozen)
                dev_loss = evaluate(eval_step, model, dev_rows, config.batch_rows // config.accumulate, batch_sharding)
                log.write({"step": position.step, "dev_loss": dev_loss})
                if not math.isfinite(dev_loss):
                    raise FloatingPointError(f"dev loss is {dev_loss} after step {position.step}: not going on")
                if position.best_loss is None or dev_loss < position.best_loss:
                    position.best_loss, position.best_step, position.bad_evaluations = dev_loss, position.step, 0
                    checkpoints.save_best(position.step, trained)
                else:
                    position.bad_evaluations += 1
                if progress:
                    progress(position.step, steps, {"dev_loss": dev_loss})
                meter.pause()
            if save_now or _stopped(config, position):
                checkpoints.save(position.step, (trained, state), dataclasses.asdict(position))

        if position.best_loss is not None:
            trained = checkpoints.restore_best(position.best_step, trained, trained_shardings)
    return TrainResult(
        model=adapters.join(trained, frozen),
        steps=position.step,
        best_step=position.best_step if position.best_loss is not None else position.step,
        best_loss=position.best_loss,
        stopped_early=position.step < steps,
        train_counts=train_rows.counts,
        dev_counts=dev_rows.counts,
        tokens_per_second=meter.rate().get("tokens_per_second"),
    )


def make_train_step(
    config: TrainConfig,
    loss: losses.Loss,
    tx: optax.GradientTransformation,
    trained_shardings: Any,
    state_shardings: Any,
    replicated: NamedSharding,
) -> Callable[..., tuple[Any, Any, dict[str, jax.Array]]]:
    """The jitted step (trained, state, frozen, batch [microbatches, rows, ...], key, step) -> (trained, state,
    metrics); donates the first two. `key` and `step` decide what the adapters drop and what noise a loss draws. Metrics
    are loss, grad_norm, supervised, and what the loss watches.

    The sums of every microbatch are divided by the counts of all of them, so that microbatches change nothing but the
    order of a sum.
    """

    def objective(trained, frozen, scales, micro, key):
        dropout_key, noise_key = jax.random.split(key)
        model = adapters.with_dropout(adapters.join(trained, frozen), dropout_key)
        sums = loss.sums(model, micro, key=noise_key, remat=config.remat, dtype=jnp.dtype(config.dtype))
        means = sums * scales
        return jnp.sum(means[: len(means) - watched]), means[len(means) - watched :]

    watched = len(loss.watched)
    gradient = jax.value_and_grad(objective, has_aux=True)

    @functools.partial(jax.jit, donate_argnums=(0, 1), out_shardings=(trained_shardings, state_shardings, replicated))
    def train_step(trained, state, frozen, batch, key, step):
        keys = jax.random.split(jax.random.fold_in(key, step), len(batch["ids"]))
        counts = loss.counts(batch)
        # A batch of nothing but padding changes nothing; it must not divide by 0.
        scales = jnp.where(counts > 0, 1 / jnp.maximum(counts, jnp.finfo(jnp.float32).tiny), 0)
        if len(keys) == 1:
            (total, seen), gradients = gradient(trained, frozen, scales, jax.tree.map(lambda x: x[0], batch), keys[0])
        else:
            start = (jnp.zeros(()), jnp.zeros(watched)), jax.tree.map(jnp.zeros_like, trained)
            ((total, seen), gradients), _ = jax.lax.scan(
                lambda sums, micro: (jax.tree.map(jnp.add, sums, gradient(trained, frozen, scales, *micro)), None),
                start,
                (batch, keys),
            )
        updates, state = tx.update(gradients, state, trained)
        metrics = {"loss": total, "grad_norm": optax.tree.norm(gradients), "supervised": counts[-1]}
        metrics |= dict(zip(loss.watched, seen, strict=True))
        return optax.apply_updates(trained, updates), state, metrics

    return train_step


def make_eval_step(
    config: TrainConfig, loss: losses.Loss, replicated: NamedSharding
) -> Callable[[decoder.Decoder, losses.Batch], tuple[jax.Array, jax.Array]]:
    """The jitted (model, batch [rows, ...]) -> sums and counts of the objective's terms, without dropout or noise."""

    def eval_step(model, batch):
        sums, counts = loss.sums(model, batch, remat=config.remat, dtype=jnp.dtype(config.dtype)), loss.counts(batch)
        return tuple(terms[: len(terms) - len(loss.watched)] for terms in (sums, counts))

    return jax.jit(eval_step, out_shardings=(replicated, replicated))


def evaluate(
    eval_step: Callable[[decoder.Decoder, losses.Batch], tuple[jax.Array, jax.Array]],
    model: decoder.Decoder,
    rows: batches.Packed,
    batch_rows: int,
    batch_sharding: NamedSharding,
) -> float:
    """The objective over all of `rows` as one batch, added up in float64."""
    found = [eval_step(model, batch) for batch in on_devices(rows, batch_rows, batch_sharding)]
    sums, counts = np.asarray(jax.device_get(found), np.float64).sum(axis=0)
    return float((sums / counts).sum())


def with_reference(config: TrainConfig, model: decoder.Decoder, rows: batches.Packed, mesh: Mesh) -> batches.Packed:
    """Rows of `batches.pack_pairs` with what DPO compares to: `reference_logps` float32 [rows, max_pairs, 2], the
    log-probabilities of the completions under `model`, the one that training starts from (`losses.pair_logps`).

    One pass over the rows, before training, in the batches and the dtype of an evaluation. A run that goes on from a
    checkpoint makes it again and gets the same bits.
    """
    check_batch(config, mesh)
    logps = jax.jit(
        functools.partial(losses.pair_logps, dtype=jnp.dtype(config.dtype)),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )
    with jax.set_mesh(mesh):
        model = jax.device_put(model, sharding.shardings_of(model, mesh))
        in_order = on_devices(rows, config.batch_rows // config.accumulate, batch_sharding_of(mesh))
        found = jax.device_get([logps(model, batch) for batch in in_order])
    none = np.zeros((0, rows.arrays["pair_weights"].shape[1], 2), np.float32)
    reference = np.concatenate([none, *found])[: rows.rows]
    return dataclasses.replace(rows, arrays=rows.arrays | {"reference_logps": reference})


def check_batch(config: TrainConfig, mesh: Mesh) -> None:
    """Raise ValueError where the batch cannot be cut into microbatches and laid over the mesh."""
    shards = math.prod(mesh.shape[axis] for axis in ROW_AXES)
    if config.batch_rows % (shards * config.accumulate):
        by = f"mesh axes {' x '.join(ROW_AXES)} = {shards}"
        if config.accumulate > 1:
            by = f"{config.accumulate} microbatches times {by}"
        raise ValueError(
            f"train batch {config.batch_rows} does not divide by {by}: "
            f"set config.batch_rows to a multiple of {shards * config.accumulate}"
        )


def place(model: decoder.Decoder, shardings: Any) -> decoder.Decoder:
    """A float32 copy of what is trained, laid out by `shardings`: the step donates it, and the caller's stays whole."""
    copy = jax.jit(lambda m: jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), m), out_shardings=shardings)
    return copy(jax.device_put(model, shardings))


def to_devices(
    batch: Mapping[str, np.ndarray], microbatches: int, batch_sharding: NamedSharding
) -> dict[str, jax.Array]:
    """Arrays of [rows, ...] as [microbatches, rows / microbatches, ...], laid out by `batch_sharding`."""
    out = {}
    for name, array in batch.items():
        array = array.reshape(microbatches, -1, *array.shape[1:])
        out[name] = jax.make_array_from_callback(array.shape, batch_sharding, array.__getitem__)
    return out


def on_devices(rows: batches.Packed, batch_rows: int, batch_sharding: NamedSharding) -> Iterator[dict[str, jax.Array]]:
    """All rows in order, as batches [batch_rows, ...] filled up with empty rows."""
    for batch in batches.batches_in_order(rows, batch_rows):
        yield {name: array[0] for name, array in to_devices(batch, 1, batch_sharding).items()}


def batch_sharding_of(mesh: Mesh) -> NamedSharding:
    """Of arrays [microbatches, rows, ...]."""
    return NamedSharding(mesh, PartitionSpec(None, ROW_AXES))


def _drop_of_other_rows(directory: pathlib.Path, digests: dict[str, str]) -> None:
    """Remove what a training on other rows than these has left, and note in rows.json which they are."""
    noted = directory / "rows.json"
    if noted.exists() and read_json(noted) != digests:
        logger.info("%s: made anew, for it was trained on other rows", directory)
        shutil.rmtree(directory)
    write_json(noted, digests)


def _stopped(config: TrainConfig, position: _Position) -> bool:
    return position.bad_evaluations >= config.patience


def _fetch(
    pending: Sequence[tuple[int, Mapping[str, jax.Array]]], learning_rates: np.ndarray, log: "StepLog"
) -> dict[str, float]:
    """Bring the metrics of some steps to the host, write them down, and return the newest."""
    row: dict[str, float] = {}
    for step, metrics in jax.device_get(list(pending)):
        row = {"step": step + 1} | {name: float(value) for name, value in sorted(metrics.items())}
        row["learning_rate"] = float(learning_rates[step])
        if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
            raise FloatingPointError(
                f"loss {row['loss']}, gradient norm {row['grad_norm']} at step {step + 1} "
                f"(of steps {pending[0][0] + 1} to {pending[-1][0] + 1} fetched together): not going on; "
                "lower config.learning_rate or look at the batch of this step"
            )
        log.write(row)
    return row


def step_row(row: Any) -> dict[str, Any]:
    """A decoded line of steps.jsonl. Raises ValueError where it is none."""
    if not (isinstance(row, dict) and isinstance(row.get("step"), int) and not isinstance(row["step"], bool)):
        raise ValueError("no row of a training, which has a whole number `step`")
    return row


class StepLog:
    """steps.jsonl: appended to while training; rows after a resumed step are dropped, they will come again.

    Raises:
      StoreError: a row that was written before the resumed step is none; names file and line.
    """

    def __init__(self, path: pathlib.Path, resumed_at: int):
        self._path = path
        kept = []
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for number, line in enumerate(lines, 1):
            if number == len(lines) and not line.endswith(b"}\n"):
                break  # torn: it can only stand after the resumed step, for rows are written before their checkpoint
            try:
                step = step_row(decode(line))["step"]
            except (ValueError, RecursionError) as error:
                reason = "nested too deeply" if isinstance(error, RecursionError) else error
                raise StoreError(
                    f"{path}:{number}: {reason}: delete this line, or the file; the training itself needs neither"
                ) from None
            if step <= resumed_at:
                kept.append(line)
        partial = path.with_suffix(".partial")
        with naming(path):
            partial.write_bytes(b"".join(kept))
        os.replace(partial, path)

    def write(self, row: Mapping[str, float | None]) -> None:
        with naming(self._path), self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


class _Meter:
    """Tokens per second over the run, without the first fetch (which compiles) and the evaluations."""

    def __init__(self):
        self._tokens, self._waiting, self._seconds = 0, 0, 0.0
        self._since: float | None = None

    def count(self, batch: Mapping[str, np.ndarray]) -> None:
        self._waiting += int((batch["segments"] > 0).sum())

    def rate(self) -> dict[str, float]:
        now = time.perf_counter()
        if self._since is not None and self._waiting:
            self._tokens, self._seconds = self._tokens + self._waiting, self._seconds + now - self._since
        self._since, self._waiting = now, 0
        return {"tokens_per_second": self._tokens / self._seconds} if self._seconds else {}

    def pause(self) -> None:
        self._since = time.perf_counter()
