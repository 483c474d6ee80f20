"""Attention kernels: Pallas on TPUs, cuDNN on NVIDIA GPUs. They compute what attention.py computes by XLA elsewhere.

The TPU kernels are chosen by `jax.lax.platform_dependent`, that is when a function is lowered: so a function that is
compiled ahead of time for a TPU, on a machine that has none, contains them too. cuDNN is chosen when a function is
traced, if that machine has a GPU. XLA cannot partition a Pallas kernel, so on a mesh the kernels run under shard_map:
key-value heads are split over "tensor", the rows of a batch over ("data", "fsdp").
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
MAX_QUERIES = 512  # per row of the batch in `attend_pages`: all of them lie in a core's memory at once


def can_splash(q, window, reach: int | None) -> bool:
    """Whether `splash_attention` can compute these queries [batch, length, kv_heads, group, head_dim]: length and
    head_dim are multiples of 128, and all layers have the same window."""
    return q.shape[1] % LANES == 0 and q.shape[-1] % LANES == 0 and (window is None or reach is not None)


def splash_attention(q, k, v, segments, reach: int | None, *, interpret: bool = False):
    """`attention.packed_attention` by JAX's splash attention kernel for TPUs.

    Args:
      q: [batch, length, kv_heads, group, head_dim]; k, v: [batch, length, kv_heads, head_dim].
      segments: [batch, length].
      reach: how many positions a token sees, itself included; None: all before it.
      interpret: runs the kernel on any platform, slowly.

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
        output: Any = jax.vmap(kernel)(q, k, v, splash.SegmentIds(segments, segments))
        return output

    rows, heads = row_axes(batch), _head_axis(kv_heads)
    by_head = PartitionSpec(rows, heads)
    q = q.transpose(0, 2, 3, 1, 4).reshape(batch, kv_heads * group, length, head_dim) * head_dim**-0.5
    attend = _on_mesh(attend, (by_head, by_head, by_head, PartitionSpec(rows)), by_head)
    output = attend(q, k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3), segments)
    return output.transpose(0, 2, 1, 3).reshape(batch, length, kv_heads * group * head_dim)


def can_flash(q, window) -> bool:
    """Whether `flash_attention` can compute these queries [batch, length, kv_heads, group, head_dim] on this machine:
    it has a GPU, the queries are 16-bit floats, there is no sliding window, and cuDNN supports the sizes."""
    return (
        jax.default_backend() == "gpu"
        and window is None
        and q.dtype in (jnp.bfloat16, jnp.float16)
        and q.shape[1] % 2 == 0
        and q.shape[-1] % 8 == 0
        and q.shape[-1] <= 128
    )


def flash_attention(q, k, v, segments):
    """`attention.packed_attention` by cuDNN's flash attention.

    Args:
      q: [batch, length, kv_heads, group, head_dim], bfloat16 or float16; k, v: [batch, length, kv_heads, head_dim].
      segments: [batch, length].

    Returns:
      [batch, length, hidden].
    """
    batch, length, kv_heads, group, head_dim = q.shape
    q = q.reshape(batch, length, kv_heads * group, head_dim)
    same = (segments[:, :, None] == segments[:, None])[:, None]
    output = jax.nn.dot_product_attention(q, k, v, mask=same, is_causal=True, implementation="cudnn")
    return output.reshape(batch, length, kv_heads * group * head_dim)


def can_attend_pages(q) -> bool:
    """Whether `attend_pages` can compute these queries [batch, kv_heads, queries, head_dim]."""
    return q.shape[2] <= MAX_QUERIES and q.shape[3] % LANES == 0


def attend_pages(
    partial, q, pages: Pages, layer, page_table, first, end, used, positions, window, *, interpret: bool = False
):
    """`attention.attend_pages` as one kernel: a page is copied into the core's memory once for all queries of a row of
    the batch, while the page before it is computed. Takes and returns what that function does; `interpret` runs the
    kernel on any platform, slowly."""
    batch, kv_heads, rows, head_dim = q.shape
    if window is None:
        window = jnp.iinfo(jnp.int32).max
    scalars = (
        jnp.reshape(layer, 1), jnp.clip(page_table, 0, pages.k.shape[0] - 1), first, jnp.where(used > 0, end, 0),
        jnp.reshape(jnp.asarray(window, jnp.int32), 1), jnp.maximum(used, 1),
    )  # fmt: skip

    def run(layer, page_table, first, end, window, used, maximum, denominator, numerator, q, positions, k, v):
        kv_heads = q.shape[1]

        def of_row(*shape):
            return pl.BlockSpec((None, *shape), lambda row, number, *_: (row, *(0 for _ in shape)))

        def of_page(*shape):
            return pl.BlockSpec(
                (None, None, *shape),
                lambda row, number, layer, page_table, *_: (page_table[row, number], layer[0], *(0 for _ in shape)),
            )

        softmax = [of_row(kv_heads, rows, 1), of_row(kv_heads, rows, 1), of_row(kv_heads, rows, head_dim)]
        grid = pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=5,
            grid=(batch, used),
            in_specs=[
                *softmax, of_row(kv_heads, rows, head_dim), of_row(rows, 1), of_page(kv_heads, head_dim, KEY_BLOCK),
                of_page(kv_heads, KEY_BLOCK, head_dim),
            ],
            out_specs=softmax,
        )  # fmt: skip
        partial = pl.pallas_call(
            _attend_page,
            out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (maximum, denominator, numerator)],
            grid_spec=grid,
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
            interpret=interpret,
            name="attend_pages",
        )(layer, page_table, first, end, window, maximum, denominator, numerator, q, positions, k, v)
        return tuple(partial)

    heads = _head_axis(kv_heads)
    whole, by_head, by_page = PartitionSpec(), PartitionSpec(None, heads), PartitionSpec(None, None, heads)
    specs = (*(whole for _ in scalars), by_head, by_head, by_head, by_head, whole, by_page, by_page)
    run = _on_mesh(run, specs, (by_head,) * 3)
    maximum, denominator, numerator = run(
        *scalars,
        partial.maximum[..., None],
        partial.denominator[..., None],
        partial.numerator,
        q,
        positions[..., None],
        pages.k,
        pages.v,
    )
    return type(partial)(maximum[..., 0], denominator[..., 0], numerator)


def _attend_page(
    layer,
    page_table,
    first,
    end,
    window,
    old_maximum,
    old_denominator,
    old_numerator,
    q,
    positions,
    k,
    v,
    maximum,
    denominator,
    numerator,
):
    """One page of one row of the batch: the recurrence of `attention.attend`."""
    row, number = pl.program_id(0), pl.program_id(1)

    @pl.when(number == 0)
    def _():
        maximum[...], denominator[...], numerator[...] = old_maximum[...], old_denominator[...], old_numerator[...]

    position = (first[row] + number) * KEY_BLOCK + jax.lax.broadcasted_iota(jnp.int32, (q.shape[1], KEY_BLOCK), 1)
    allowed = (position < end[row]) & (position > positions[...] - window[0])
    for head in range(q.shape[0]):
        scores = jnp.dot(q[head], k[head], preferred_element_type=jnp.float32)
        before = maximum[head]
        after = jnp.maximum(before, jnp.where(allowed, scores, -jnp.inf).max(axis=1, keepdims=True))
        weights = jnp.where(allowed, jnp.exp(scores - after), 0.0)
        factor = jnp.exp(before - after)
        maximum[head] = after
        denominator[head] = denominator[head] * factor + weights.sum(axis=1, keepdims=True)
        added = jnp.dot(weights.astype(v.dtype), v[head], preferred_element_type=jnp.float32)
        numerator[head] = numerator[head] * factor + added


def _head_axis(kv_heads: int) -> str | None:
    """The axis of the mesh in force that splits key-value heads; None where there is no mesh, or where it does not
    divide them."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or kv_heads % mesh.shape["tensor"] else "tensor"


def _on_mesh(function: Callable, in_specs, out_specs) -> Callable:
    """`function` under shard_map where there is a mesh in force, else as it is."""
    if jax.sharding.get_abstract_mesh().empty:
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)
