"""Training in a run: under a progress bar, from checkpoints of the work directory, to an exported model."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spare_jax.models.decoder import Decoder
from spare_jax.models.huggingface import Checkpoint
from spare_jax.runs.models import export
from spare_jax.runs.run import Run, progress_bar
from spare_jax.training import batches, loop, losses
from spare_jax.training.setup import TrainConfig

logger = logging.getLogger(__name__)


def train(
    run: Run,
    description: str,
    directory: Path,
    config: TrainConfig,
    model: Decoder,
    loss: losses.Loss,
    train_rows: batches.Packed,
    dev_rows: batches.Packed,
) -> loop.TrainResult:
    """Train a copy of `model` under a progress bar, on rows that are packed to the config's `row_length`."""
    with progress_bar(0, description, "step") as bar:

        def progress(step: int, steps: int, metrics: Mapping[str, float]) -> None:
            bar.total = steps
            bar.update(step - bar.n)
            shown = {name: f"{metrics[name]:.4g}" for name in ("loss", "dev_loss") if name in metrics}
            bar.set_postfix(shown, refresh=False)

        result = loop.train(config, model, loss, train_rows, dev_rows, directory, run.mesh, progress)
    for split, counts in (("train", result.train_counts), ("dev", result.dev_counts)):
        if counts.too_long:
            logger.warning(
                "%s, %s split: %d of %d pairs were longer than a row and left out",
                description, split, counts.too_long, counts.examples,
            )  # fmt: skip
        if counts.truncated:
            logger.warning(
                "%s, %s split: %d of %d examples were longer than a row and lost %d step tags and %d targets",
                description, split, counts.truncated, counts.examples, counts.dropped_tags, counts.dropped_targets,
            )  # fmt: skip
    return result


def fine_tune(
    run: Run,
    description: str,
    directory: str,
    start: Checkpoint,
    loss: losses.Loss,
    rows: Sequence[batches.Packed],
    how: TrainConfig,
    counted: Mapping[str, Any] | None = None,
) -> list[str]:
    """Train `start` on the rows of train and dev by the settings `how`, and write checkpoints/, what `export` does
    and training.json, the training's figures and what was `counted`, below `directory`; returns what it wrote.

    Raises:
      ValueError: there is nothing to learn from.
    """
    train_rows, dev_rows = rows
    if not train_rows.rows:
        raise ValueError(
            f"{description}: nothing to learn from {train_rows.counts.examples} examples, of which "
            f"{train_rows.counts.too_long} are longer than row_length={how.row_length}: give more problems, more "
            "samples or longer rows"
        )
    checkpoints = run.work.path / directory / "checkpoints"
    config = dataclasses.replace(how, seed=run.seed)
    result = train(run, description, checkpoints, config, start.model, loss, train_rows, dev_rows)
    written = write_training(run, directory, result, counted or {})
    return [*export(run, directory, result.model, start), written]


def write_training(run: Run, directory: str, result: loop.TrainResult, counted: Mapping[str, Any]) -> str:
    """Write `directory`/training.json: the training's figures, and what was `counted`."""
    said = {
        "steps": result.steps,
        "best_step": result.best_step,
        "best_loss": result.best_loss,
        "stopped_early": result.stopped_early,
        "train": dataclasses.asdict(result.train_counts),
        "dev": dataclasses.asdict(result.dev_counts),
    }
    run.work.write_json(f"{directory}/training.json", said | dict(counted))
    return f"{directory}/training.json"
