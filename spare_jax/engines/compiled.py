"""The jitted functions of the local engine, with the shardings of what they return."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from spare_jax.engines import slots as device
from spare_jax.models.decoder import DecoderConfig, KVCache, hidden_states
from spare_jax.models.heads import step_scores

BATCH_AXES = ("data", "fsdp")  # mesh axes that share out slots and rows of a batch


class Compiled(NamedTuple):
    """See slots.py for the functions; `place` is the sharding of what the host hands over."""

    empty: Callable[..., device.SlotState]
    prefill: Callable[..., device.Prefilled]
    insert: Callable[..., device.SlotState]
    decode: Callable[..., tuple[device.SlotState, jax.Array]]
    score: Callable[..., jax.Array]
    place: Sharding


@functools.lru_cache(maxsize=16)
def compile_functions(
    config: DecoderConfig, slots: int, length: int, chunk: int, rows: int, mesh: Mesh | None, dtype: np.dtype
) -> Compiled:
    """The functions for these sizes; engines of equal sizes share them and what they compiled.

    On a mesh, slots and rows are shared out over (data, fsdp) where they divide, key-value heads over tensor; else
    they are replicated. Every result has a fixed sharding: one that the compiler chose could differ from the
    argument's and make the next call compile again.
    """
    by_row: Any  # Any: trees of shardings are built from classes whose fields are arrays
    slot_cache: Any
    row_cache: Any
    if mesh is None:
        place = by_slot = slot_cache = by_row = row_cache = SingleDeviceSharding(jax.devices()[0])
    else:
        shares = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
        slot_axes = None if slots % shares else BATCH_AXES
        row_axes = None if rows % shares else BATCH_AXES
        head_axis = None if config.num_kv_heads % mesh.shape["tensor"] else "tensor"
        place = NamedSharding(mesh, PartitionSpec())
        by_slot, by_row = (NamedSharding(mesh, PartitionSpec(axes)) for axes in (slot_axes, row_axes))
        slot_cache = NamedSharding(mesh, PartitionSpec(None, None, slot_axes, head_axis))
        row_cache = NamedSharding(mesh, PartitionSpec(None, row_axes, None, head_axis))
    empty = functools.partial(device.empty_slots, config, slots, length, dtype)
    state = jax.tree.map(lambda _: by_slot, jax.eval_shape(empty))._replace(cache=KVCache(slot_cache, slot_cache))
    return Compiled(
        empty=jax.jit(empty, out_shardings=state),
        prefill=jax.jit(
            functools.partial(device.prefill_prompts, dtype=dtype),
            out_shardings=device.Prefilled(by_row, row_cache, row_cache),
        ),
        # A function of its own: jax counts what it compiled by function, not by what jit returned.
        insert=jax.jit(functools.partial(device.insert), donate_argnums=0, out_shardings=state),
        decode=jax.jit(
            functools.partial(device.decode_chunk, steps=chunk), donate_argnums=1, out_shardings=(state, place)
        ),
        score=jax.jit(functools.partial(_score_rows, dtype=dtype), static_argnames="read_out", out_shardings=place),
        place=place,
    )


def _score_rows(model, head, ids, lengths, positions, read_out, dtype):
    """Scores at `positions` [batch, steps] of sequences `ids` [batch, bucket] that are padded on the right."""
    index = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    segments = (index < lengths[:, None]).astype(jnp.int32)
    return step_scores(model, head, hidden_states(model, ids, index, segments, dtype=dtype), positions, read_out)
