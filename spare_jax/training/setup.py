"""The set-up of a training: its settings, what is trained, the optimiser, where all of it lies, and the step.

Everything follows from shapes, so a step can be compiled for machines that are not there (benchmarks/tpu_training.py).
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PRNGKeyArray

from spare_jax.keys import unlisted
from spare_jax.models import adapters, decoder, sharding
from spare_jax.models.rows import ROW_AXES
from spare_jax.training import batches, losses, optimizer


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of a training; defaults are those of SPARE (arXiv 2506.15498) where it gives them.

    A step takes `batch_rows` rows of `row_length` tokens, in `accumulate` microbatches. There are `steps` steps or,
    where that is None, `epochs` passes over the rows. `optimizer` is adamw or muon; `clip` is the largest global norm
    of a gradient and `warmup` a fraction of the steps. Trained parameters and moments stay float32; the model computes
    in `dtype`, and `remat` is what its backward pass computes again (`decoder.hidden_states`). Training ends early
    after `patience` evaluations in a row without a better dev loss. Metrics are fetched every `fetch_every` steps.
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
class Setup:
    """A model's training on a mesh.

    Attributes:
      trained: the parameters that are trained (`adapters.split`), in float32.
      state: the optimiser's state; a moment is laid out as its parameter is.
      frozen: the model's other arrays.
      train_step: the jitted (trained, state, frozen, batch, key, number) -> (trained, state, metrics). It donates the
        first two. Arrays of `batch` are [microbatches, rows, ...]; `key` and the step's `number` decide what adapters
        drop and what noise a loss draws. Metrics: loss, grad_norm, supervised, and what the loss watches.

    The first three are trees of jax.ShapeDtypeStruct with shardings; `place` makes the arrays.
    """

    mesh: Mesh
    tx: optax.GradientTransformation
    trained: decoder.Decoder
    state: optax.OptState
    frozen: decoder.Decoder
    train_step: Any

    def place(self, model: decoder.Decoder) -> tuple[decoder.Decoder, optax.OptState, decoder.Decoder]:
        """`trained`, `state` and `frozen` of a model as arrays on the mesh. What is trained is a copy, since the step
        donates it: the caller's model stays whole."""
        where, state_where, frozen_where = (_shardings(tree) for tree in (self.trained, self.state, self.frozen))
        trained, frozen = adapters.split(model)
        copied = jax.jit(lambda tree: jax.tree.map(_float32_copy, tree), out_shardings=where)
        trained = copied(jax.device_put(trained, where))
        state = jax.jit(functools.partial(optimizer.init_state, self.tx), out_shardings=state_where)(trained)
        return trained, state, jax.device_put(frozen, frozen_where)

    def step(self, trained: Any, state: Any, frozen: Any, batch: losses.Batch, key: PRNGKeyArray, number: int) -> Any:
        """The train step on arrays of the mesh. An array that lies elsewhere would be sent at every step: it is an
        error."""
        key, on_mesh = jax.device_put((key, np.int32(number)), _replicated(self.mesh))
        with jax.set_mesh(self.mesh), jax.transfer_guard("disallow"):
            return self.train_step(trained, state, frozen, batch, key, on_mesh)

    def lower(self, batch: Mapping[str, np.ndarray], microbatches: int) -> jax.stages.Lowered:
        """The train step lowered for a batch like these arrays [rows, ...]; nothing is run."""
        batch = {name: _in_microbatches(array, microbatches) for name, array in batch.items()}
        key, number = jax.eval_shape(lambda: (jax.random.key(0), jnp.int32(0)))
        with jax.set_mesh(self.mesh):
            return self.train_step.lower(
                self.trained, self.state, self.frozen, _laid_out(batch, _by_rows(self.mesh, microbatches)),
                *_laid_out((key, number), _replicated(self.mesh)),
            )  # fmt: skip


def set_up(
    config: TrainConfig, model: decoder.Decoder, loss: losses.Loss, learning_rate: optax.Schedule, mesh: Mesh
) -> Setup:
    """The set-up of training `model`, or its adapters where it has some. Of the model shapes and dtypes suffice.

    Raises:
      ValueError: a dimension of a parameter does not divide by its mesh axis; names both.
    """
    tx = optimizer.OPTIMIZERS[config.optimizer](learning_rate, config.weight_decay, config.clip)
    trained, frozen = adapters.split(model)
    where, frozen_where = adapters.split(model, sharding.shardings_of(model, mesh))
    trained = jax.eval_shape(lambda tree: jax.tree.map(_float32_copy, tree), trained)
    state = jax.eval_shape(functools.partial(optimizer.init_state, tx), trained)
    state_where = sharding.shard_moments(state, where, mesh)
    train_step = _train_step(config, loss, tx, (where, state_where, _replicated(mesh)))
    return Setup(
        mesh, tx, _laid_out(trained, where), _laid_out(state, state_where), _laid_out(frozen, frozen_where), train_step
    )


def _train_step(config: TrainConfig, loss: losses.Loss, tx: optax.GradientTransformation, out_shardings: Any) -> Any:
    """`Setup.train_step`. The sums of every microbatch are divided by the counts of all of them, so that microbatches
    change nothing but the order of a sum."""

    def objective(trained, frozen, scales, micro, key):
        dropout_key, noise_key = jax.random.split(key)
        model = adapters.with_dropout(adapters.join(trained, frozen), dropout_key)
        sums = loss.sums(model, micro, key=noise_key, remat=config.remat, dtype=jnp.dtype(config.dtype))
        means = sums * scales
        return jnp.sum(means[: len(means) - watched]), means[len(means) - watched :]

    watched = len(loss.watched)
    gradient = jax.value_and_grad(objective, has_aux=True)

    @functools.partial(jax.jit, donate_argnums=(0, 1), out_shardings=out_shardings)
    def train_step(trained, state, frozen, batch, key, number):
        keys = jax.random.split(jax.random.fold_in(key, number), len(batch["ids"]))
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


def to_devices(batch: Mapping[str, np.ndarray], mesh: Mesh, microbatches: int | None = None) -> dict[str, jax.Array]:
    """Arrays [rows, ...] on the mesh, which shares out their rows; with `microbatches` as [microbatches,
    rows / microbatches, ...], as the train step takes them."""
    where = _by_rows(mesh, microbatches)
    arrays = {name: _in_microbatches(array, microbatches) for name, array in batch.items()}
    return {name: jax.make_array_from_callback(x.shape, where, x.__getitem__) for name, x in arrays.items()}


def on_devices(rows: batches.Packed, batch_rows: int, mesh: Mesh) -> Iterator[dict[str, jax.Array]]:
    """All rows in order, as batches [batch_rows, ...] on the mesh; the last is filled up with empty rows."""
    return (to_devices(batch, mesh) for batch in batches.batches_in_order(rows, batch_rows))


def _float32_copy(x: jax.Array) -> jax.Array:
    return jnp.array(x, jnp.float32, copy=True)


def _in_microbatches(x: np.ndarray, microbatches: int | None) -> np.ndarray:
    return x if microbatches is None else x.reshape(microbatches, -1, *x.shape[1:])


def _by_rows(mesh: Mesh, microbatches: int | None) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(ROW_AXES) if microbatches is None else PartitionSpec(None, ROW_AXES))


def _replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def _laid_out(tree: Any, where: Any) -> Any:
    """The shapes of a tree's arrays, with the sharding that each has in the tree `where`, or all have."""
    where = jax.tree.map(lambda _: where, tree) if isinstance(where, NamedSharding) else where
    return jax.tree.map(lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree, where)


def _shardings(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.sharding, tree)
