"""One training run, from top to bottom: set-up, resume, steps with evaluations and checkpoints, best parameters.

The same loop trains language models, reward models and policies from preferences: the loss and the rows differ. A run
that is killed and started again ends in the same bits as one that was not, for rows, dropout and noise follow from the
step's number and nothing else is random. Of a model with adapters only the adapters are trained and saved.
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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spare_jax.models import adapters, decoder, sharding
from spare_jax.storage.jsonlines import StoreError, decode, naming, read_json, write_json
from spare_jax.training import batches, losses, optimizer
from spare_jax.training.checkpoints import Checkpoints
from spare_jax.training.setup import TrainConfig, check_batch, on_devices, set_up, to_devices

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a run ends with: the model of the best dev loss (of the last step where there is no dev set). `best_loss` is
    None without a dev set, `tokens_per_second` where the run was too short to measure."""

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
    """Train a copy of `model`, or of its adapters where it has some (adapters.py).

    A run goes on from the checkpoint in `directory` if it was trained on the same rows; otherwise it removes it and
    begins at step 0. Rows change where labels that were missing have come since.

    Args:
      train_rows: packed to the config's `row_length`, with the arrays that the loss reads (losses.py).
      dev_rows: may have no rows; then there is no early stopping, and the last model is returned.
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
    setup = set_up(config, model, loss, schedule, mesh)
    eval_step = make_eval_step(config, loss, mesh)

    _remove_if_of_other_rows(directory, {"train": train_rows.digest, "dev": dev_rows.digest})
    with jax.set_mesh(mesh), Checkpoints(directory) as checkpoints:
        trained, state, frozen = setup.place(model)
        key = jax.random.key(config.seed)
        position = _Position()
        if (saved := checkpoints.progress()) is not None:
            position = _Position(**saved)
            trained, state = checkpoints.restore((trained, state))
        log = StepLog(directory / "steps.jsonl", position.step)
        meter = _Meter()
        pending: list[tuple[int, Mapping[str, jax.Array]]] = []

        while position.step < steps and not _stopped(config, position):
            rows = batches.rows_of_step(train_rows.rows, config.batch_rows, config.seed, position.step)
            batch = batches.take(train_rows, rows)
            trained, state, metrics = setup.step(
                trained, state, frozen, to_devices(batch, mesh, config.accumulate), key, position.step
            )
            pending.append((position.step, metrics))
            meter.count(batch)
            position.step += 1
            last = position.step == steps
            evaluate_now = dev_rows.rows > 0 and (last or position.step % config.eval_every == 0)
            save_now = last or position.step % config.checkpoint_every == 0

            # Metrics are fetched seldom, but always before an evaluation or a checkpoint: a NaN is never saved.
            if len(pending) >= config.fetch_every or evaluate_now or save_now:
                newest = _fetch(pending, learning_rates, log) | meter.rate()
                pending = []
                if progress:
                    progress(position.step, steps, newest)
            if evaluate_now:
                model = adapters.join(trained, frozen)
                dev_loss = evaluate(eval_step, model, dev_rows, config.batch_rows // config.accumulate, mesh)
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
            trained = checkpoints.restore_best(position.best_step, trained)
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


def make_eval_step(
    config: TrainConfig, loss: losses.Loss, mesh: Mesh
) -> Callable[[decoder.Decoder, losses.Batch], tuple[jax.Array, jax.Array]]:
    """The jitted (model, batch [rows, ...]) -> (sums, counts) of the objective's terms, without dropout or noise."""

    def eval_step(model, batch):
        sums, counts = loss.sums(model, batch, remat=config.remat, dtype=jnp.dtype(config.dtype)), loss.counts(batch)
        return tuple(terms[: len(terms) - len(loss.watched)] for terms in (sums, counts))

    return jax.jit(eval_step, out_shardings=NamedSharding(mesh, PartitionSpec()))


def evaluate(
    eval_step: Callable[[decoder.Decoder, losses.Batch], tuple[jax.Array, jax.Array]],
    model: decoder.Decoder,
    rows: batches.Packed,
    batch_rows: int,
    mesh: Mesh,
) -> float:
    """The objective over all of `rows` as one batch; sums of batches are added up in float64."""
    terms = [eval_step(model, batch) for batch in on_devices(rows, batch_rows, mesh)]
    sums, counts = np.asarray(jax.device_get(terms), np.float64).sum(axis=0)
    return float((sums / counts).sum())


def with_reference(config: TrainConfig, model: decoder.Decoder, rows: batches.Packed, mesh: Mesh) -> batches.Packed:
    """Rows of `batches.pack_pairs` with the array that DPO needs: `reference_logps` float32 [rows, max_pairs, 2], the
    log-probabilities of the completions under `model`, the one that training starts from (`losses.pair_logps`).

    One pass over the rows before training, in the batches and the dtype of an evaluation. A run that goes on from a
    checkpoint makes them again, to the same bits.

    Raises:
      ValueError: the batch does not divide by the mesh or the microbatches.
    """
    check_batch(config, mesh)
    logps = jax.jit(
        functools.partial(losses.pair_logps, dtype=jnp.dtype(config.dtype)),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )
    with jax.set_mesh(mesh):
        model = jax.device_put(model, sharding.shardings_of(model, mesh))
        in_order = on_devices(rows, config.batch_rows // config.accumulate, mesh)
        reference = jax.device_get([logps(model, batch) for batch in in_order])
    none = np.zeros((0, rows.arrays["pair_weights"].shape[1], 2), np.float32)
    reference = np.concatenate([none, *reference])[: rows.rows]
    return dataclasses.replace(rows, arrays=rows.arrays | {"reference_logps": reference})


def _remove_if_of_other_rows(directory: pathlib.Path, digests: dict[str, str]) -> None:
    """Remove the directory if it was trained on other rows, and write the digests of these into rows.json."""
    noted = directory / "rows.json"
    if noted.exists() and read_json(noted) != digests:
        logger.info("%s: trained anew, since its rows have changed", directory)
        shutil.rmtree(directory)
    write_json(noted, digests)


def _stopped(config: TrainConfig, position: _Position) -> bool:
    return position.bad_evaluations >= config.patience


def _fetch(
    pending: Sequence[tuple[int, Mapping[str, jax.Array]]], learning_rates: np.ndarray, log: "StepLog"
) -> dict[str, float]:
    """Fetch the metrics of the pending steps, write them to the log, and return the newest."""
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
    """A decoded line of steps.jsonl. Raises ValueError where it is no row of one."""
    if not (isinstance(row, dict) and isinstance(row.get("step"), int) and not isinstance(row["step"], bool)):
        raise ValueError("no row of a training, which has a whole number `step`")
    return row


class StepLog:
    """steps.jsonl, to which a training appends. Rows after the step at which it resumes are removed: they come again.

    Raises:
      StoreError: a line cannot be read; names file and line.
    """

    def __init__(self, path: pathlib.Path, resumed_at: int):
        self._path = path
        kept = []
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for number, line in enumerate(lines, 1):
            if number == len(lines) and not line.endswith(b"}\n"):
                break  # torn by a kill: rows are written before their checkpoint, so this one is after it
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
    """Tokens per second over the run, without the steps before the first fetch (which compile) and evaluations."""

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
