"""The jitted functions of the local engine, with the shardings of what they return."""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from spare_jax.engines import slots as device
from spare_jax.models.cache import KVCache, Pages, init_pages, write_pages
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import prefill
from spare_jax.models.heads import step_scores
from spare_jax.models.rows import ROW_AXES


class Compiled(NamedTuple):
    """The jitted functions for one set of sizes."""

    pages: Callable[..., Pages]  # empty pages
    slots: Callable[..., device.SlotState]  # the state in which no slot is active
    prefill: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]  # decoder.prefill
    write: Callable[..., Pages]  # cache.write_pages
    score: Callable[..., jax.Array]  # heads.step_scores
    insert: Callable[..., device.SlotState]  # slots.insert
    decode: Callable[..., tuple[device.SlotState, jax.Array]]  # slots.decode_chunk
    replicated: Sharding  # of the arrays that the host passes in


@functools.lru_cache(maxsize=16)
def compile_functions(
    config: DecoderConfig, slots: int, max_tokens: int, pages: int, chunk: int, mesh: Mesh | None, dtype: np.dtype
) -> Compiled:
    """The functions for these sizes. Engines of equal sizes share them, and so what they have compiled.

    On a mesh, slots and the rows of a prefill batch are split over (data, fsdp) and key-value heads over tensor, each
    where the axes divide it; everything else is replicated, pages over (data, fsdp) too. Every result has a fixed
    sharding: if the compiler chose one, it could differ from the argument's and make the next call compile again.
    """
    replicated: Any  # Any: trees of shardings are built from classes whose fields are arrays
    by_slot: Any
    slot_cache: Any
    page_cache: Any
    if mesh is None:
        replicated = by_slot = slot_cache = page_cache = SingleDeviceSharding(jax.devices()[0])
    else:
        shares = math.prod(mesh.shape[axis] for axis in ROW_AXES)
        slot_axes = None if slots % shares else ROW_AXES
        head_axis = None if config.num_kv_heads % mesh.shape["tensor"] else "tensor"
        replicated = NamedSharding(mesh, PartitionSpec())
        by_slot = NamedSharding(mesh, PartitionSpec(slot_axes))
        slot_cache = NamedSharding(mesh, PartitionSpec(None, None, slot_axes, head_axis))
        page_cache = NamedSharding(mesh, PartitionSpec(None, None, head_axis))
    empty_slots = functools.partial(device.empty_slots, config, slots, max_tokens, dtype)
    state = jax.tree.map(lambda _: by_slot, jax.eval_shape(empty_slots))._replace(cache=KVCache(slot_cache, slot_cache))
    pages_sharding = Pages(page_cache, page_cache, replicated)
    # A partial is a function of its own: jax counts what it compiled by function, not by what jit returned.
    return Compiled(
        pages=jax.jit(functools.partial(init_pages, config, pages, dtype), out_shardings=pages_sharding),
        slots=jax.jit(empty_slots, out_shardings=state),
        prefill=jax.jit(functools.partial(_prefill, mesh=mesh)),
        write=jax.jit(functools.partial(write_pages), donate_argnums=0, out_shardings=pages_sharding),
        score=jax.jit(functools.partial(step_scores), static_argnums=4, out_shardings=replicated),
        insert=jax.jit(functools.partial(device.insert), donate_argnums=0, out_shardings=state),
        decode=jax.jit(
            functools.partial(_decode, steps=chunk, mesh=mesh), donate_argnums=1, out_shardings=(state, replicated)
        ),
        replicated=replicated,
    )


def _prefill(model, pages, ids, table, before, mesh: Mesh | None):
    if mesh is not None and ids.shape[0] % math.prod(mesh.shape[axis] for axis in ROW_AXES) == 0:
        ids = jax.lax.with_sharding_constraint(ids, NamedSharding(mesh, PartitionSpec(ROW_AXES)))
    with _mesh_in_force(mesh):
        return prefill(model, pages, ids, table, before)


def _decode(model, state, pages, groups, tables, steps: int, mesh: Mesh | None):
    with _mesh_in_force(mesh):
        return device.decode_chunk(model, state, pages, groups, tables, steps)


def _mesh_in_force(mesh: Mesh | None):
    """A context in which `jax.sharding.get_abstract_mesh` gives this mesh, where there is one: kernels ask for it."""
    return contextlib.nullcontext() if mesh is None else jax.sharding.use_abstract_mesh(mesh.abstract_mesh)
