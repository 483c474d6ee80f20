"""Attention in kernels, Pallas's on TPUs and cuDNN's on NVIDIA GPUs: the sums of attention.py, which computes them by
XLA everywhere else.

attention.py chooses those of TPUs by `jax.lax.platform_dependent`, that is when a function is lowered, so compiling
ahead of time for a TPU on a machine that has none takes the kernels too. XLA does not partition a Pallas kernel: on a
mesh they run under shard_map, with key-value heads over "tensor" and the rows of a batch over ("data", "fsdp"). cuDNN
is looked for when a function is traced, on a machine with a GPU alone.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask
from jax.sharding import PartitionSpec

from spare_jax.models.cache import KEY_BLOCK, Pages
from spare_jax.models.rows import row_axes

LANES = 128  # as wide as a TPU's vectors: lengths and head sizes come in multiples of it
MAX_ROWS = 512  # queries per unit of `see_pages`, all of which lie in a core's memory at once


def can_splash(q, window, reach: int | None) -> bool:
    """Whether `splash_attention` takes these queries [batch, length, kv_heads, group, head_dim]: whole blocks, and
    the same window in every layer."""
    return q.shape[1] % LANES == 0 and q.shape[-1] % LANES == 0 and (window is None or reach is not None)


def splash_attention(q, k, v, segments, reach: int | None, *, interpret: bool = False):
    """Causal attention within segments, as `packed_attention` computes it, by jax's splash kernel.

    Args:
      q: [batch, length, kv_heads, group, head_dim]; k, v: [batch, length, kv_heads, head_dim].
      segments: [batch, length].
      reach: how many positions a token sees, itself included; None: all before it.
      interpret: run the kernel on any platform, slowly.

    Returns:
      [batch, length, hidden].
    """
    batch, length, kv_heads, group, head_dim = q.shape
    shape = (length, length)
    mask = splash_mask.CausalMask(shape) if reach is None else splash_mask.LocalMask(shape, (reach - 1, 0), 0)
    block = next(size for size in (512, 256, LANES) if length % size == 0)
    sizes = splash.BlockSizes(
        block_q=block, block_kv=block, block_kv_compute=block, block_q_dkv=block, block_kv_dkv=block,
        block_kv_dkv_compute=block, use_fused_bwd_kernel=True,
    )  # fmt: skip

    def attend(q, k, v, segments):
        masks = splash_mask.MultiHeadMask([mask] * q.shape[1])
        kernel = splash.make_splash_mha(masks, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret)
        mixed: Any = jax.vmap(kernel)(q, k, v, splash.SegmentIds(segments, segments))
        return mixed

    rows, heads = row_axes(batch), _head_axis(kv_heads)
    by_head = PartitionSpec(rows, heads)
    q = q.transpose(0, 2, 3, 1, 4).reshape(batch, kv_heads * group, length, head_dim) * head_dim**-0.5
    attend = _on_mesh(attend, (by_head, by_head, by_head, PartitionSpec(rows)), by_head)
    mixed = attend(q, k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3), segments)
    return mixed.transpose(0, 2, 1, 3).reshape(batch, length, kv_heads * group * head_dim)


def can_flash(q, window) -> bool:
    """Whether `flash_attention` takes these queries [batch, length, kv_heads, group, head_dim] here: on a GPU, in 16
    bits, without a sliding window."""
    return (
        jax.default_backend() == "gpu"
        and window is None
        and q.dtype in (jnp.bfloat16, jnp.float16)
        and q.shape[1] % 2 == 0
        and q.shape[-1] % 8 == 0
        and q.shape[-1] <= 128
    )


def flash_attention(q, k, v, segments):
    """Causal attention within segments, as `packed_attention` computes it, by cuDNN.

    Args:
      q: [batch, length, kv_heads, group, head_dim]; k, v: [batch, length, kv_heads, head_dim]; 16 bits.
      segments: [batch, length].

    Returns:
      [batch, length, hidden].
    """
    batch, length, kv_heads, group, head_dim = q.shape
    q = q.reshape(batch, length, kv_heads * group, head_dim)
    same = (segments[:, :, None] == segments[:, None])[:, None]
    mixed = jax.nn.dot_product_attention(q, k, v, mask=same, is_causal=True, implementation="cudnn")
    return mixed.reshape(batch, length, kv_heads * group * head_dim)


def can_see_pages(q) -> bool:
    """Whether `see_pages` takes these queries [units, kv_heads, queries, head_dim]."""
    return q.shape[2] <= MAX_ROWS and q.shape[3] % LANES == 0


def see_pages(seen, q, pages: Pages, layer, table, first, end, used, positions, window, *, interpret: bool = False):
    """`attention.see_pages` in one kernel: a page goes from the pool to the core once for all queries of a unit, and
    the next one is fetched meanwhile. Arguments and result are those of that function, and `interpret`."""
    units, kv_heads, rows, head_dim = q.shape
    if window is None:
        window = jnp.iinfo(jnp.int32).max
    scalars = (
        jnp.reshape(layer, 1), jnp.clip(table, 0, pages.k.shape[0] - 1), first, jnp.where(used > 0, end, 0),
        jnp.reshape(jnp.asarray(window, jnp.int32), 1), jnp.maximum(used, 1),
    )  # fmt: skip

    def read(layer, table, first, end, window, used, maximum, total, mixed, q, positions, k, v):
        kv_heads = q.shape[1]

        def of_unit(*shape):
            return pl.BlockSpec((None, *shape), lambda unit, number, *_: (unit, *(0 for _ in shape)))

        def of_page(*shape):
            return pl.BlockSpec(
                (None, None, *shape),
                lambda unit, number, layer, table, *_: (table[unit, number], layer[0], *(0 for _ in shape)),
            )

        softmax = [of_unit(kv_heads, rows, 1), of_unit(kv_heads, rows, 1), of_unit(kv_heads, rows, head_dim)]
        grid = pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=5,
            grid=(units, used),
            in_specs=[
                *softmax, of_unit(kv_heads, rows, head_dim), of_unit(rows, 1), of_page(kv_heads, head_dim, KEY_BLOCK),
                of_page(kv_heads, KEY_BLOCK, head_dim),
            ],
            out_specs=softmax,
        )  # fmt: skip
        seen = pl.pallas_call(
            _see_page,
            out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (maximum, total, mixed)],
            grid_spec=grid,
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
            interpret=interpret,
            name="see_pages",
        )(layer, table, first, end, window, maximum, total, mixed, q, positions, k, v)
        return tuple(seen)

    heads = _head_axis(kv_heads)
    whole, by_head, by_page = PartitionSpec(), PartitionSpec(None, heads), PartitionSpec(None, None, heads)
    specs = (*(whole for _ in scalars), by_head, by_head, by_head, by_head, whole, by_page, by_page)
    read = _on_mesh(read, specs, (by_head,) * 3)
    maximum, total, mixed = read(
        *scalars, seen.maximum[..., None], seen.total[..., None], seen.mixed, q, positions[..., None], pages.k, pages.v
    )
    return type(seen)(maximum[..., 0], total[..., 0], mixed)


def _see_page(
    layer, table, first, end, window, old_maximum, old_total, old_mixed, q, positions, k, v, maximum, total, mixed
):
    """One page of one unit: the recurrence of `attention.see`."""
    unit, number = pl.program_id(0), pl.program_id(1)

    @pl.when(number == 0)
    def _():
        maximum[...], total[...], mixed[...] = old_maximum[...], old_total[...], old_mixed[...]

    position = (first[unit] + number) * KEY_BLOCK + jax.lax.broadcasted_iota(jnp.int32, (q.shape[1], KEY_BLOCK), 1)
    allowed = (position < end[unit]) & (position > positions[...] - window[0])
    for head in range(q.shape[0]):
        scores = jnp.dot(q[head], k[head], preferred_element_type=jnp.float32)
        before = maximum[head]
        after = jnp.maximum(before, jnp.where(allowed, scores, -jnp.inf).max(axis=1, keepdims=True))
        weights = jnp.where(allowed, jnp.exp(scores - after), 0.0)
        factor = jnp.exp(before - after)
        maximum[head] = after
        total[head] = total[head] * factor + weights.sum(axis=1, keepdims=True)
        added = jnp.dot(weights.astype(v.dtype), v[head], preferred_element_type=jnp.float32)
        mixed[head] = mixed[head] * factor + added


def _head_axis(kv_heads: int) -> str | None:
    """The axis of the mesh in force that shares out key-value heads; None where there is no mesh, or where they do not
    divide."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or kv_heads % mesh.shape["tensor"] else "tensor"


def _on_mesh(function: Callable, in_specs, out_specs) -> Callable:
    """`function` on each device's share, where there is a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)
