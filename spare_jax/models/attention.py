"""Softmax attention over blocks of keys, joined by online softmax (Milakov and Gimelshein 2018; FlashAttention, Dao et
al. 2022).

A `PartialAttention` is the attention of each query to some of its keys, not yet divided by the sum of the weights;
`attend` adds a block of keys to one. A block in which a query may see no key leaves that query's PartialAttention
exactly as it was: the old sums are multiplied by 1 and 0 is added. So the bits of a query's result depend neither on
how many blocks the other queries need nor on how much cache is allocated. Scores, sums and weighted values are float32.

Queries that share keys are rows of one matrix: the query heads of a key-value head, the tokens of a prompt, the samples
of a request. An axis "queries" is all of these together.

`packed_attention` and `attend_pages` are computed by XLA here, and where kernels.py has a kernel by that: both on a
TPU, the first on an NVIDIA GPU.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from spare_jax.models import kernels
from spare_jax.models.cache import KEY_BLOCK, KVCache, Pages, SlotGroups

QUERY_BLOCK = 128  # queries of a prompt attend in blocks of this size: keys after a block's end are never computed
_MASKED = -1e30  # finite: a row that is masked everywhere (padding) must not become NaN


class PartialAttention(NamedTuple):
    """The attention of each query to some keys, as online softmax keeps it: the result is numerator / denominator."""

    maximum: Float[Array, "batch kv_heads queries"]  # of the scores; _MASKED before any key
    denominator: Float[Array, "batch kv_heads queries"]  # sum of exp(score - maximum)
    numerator: Float[Array, "batch kv_heads queries head_dim"]  # sum of exp(score - maximum) * value


def no_attention(q: Float[Array, "batch kv_heads queries head_dim"]) -> PartialAttention:
    """The attention of these queries to no keys."""
    zeros = jnp.zeros(q.shape[:-1], jnp.float32)
    return PartialAttention(zeros + _MASKED, zeros, jnp.zeros(q.shape, jnp.float32))


def attend(
    partial: PartialAttention,
    q: Float[Array, "batch kv_heads queries head_dim"],
    k: Float[Array, "batch kv_heads head_dim keys"],
    v: Float[Array, "batch kv_heads keys head_dim"],
    allowed: Bool[Array, "batch #kv_heads #queries keys"],
) -> PartialAttention:
    """`partial` with a block of keys added; each query sees the keys that `allowed` gives it. `q` is already scaled by
    head_dim**-0.5."""
    scores = jnp.matmul(q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(allowed, scores, _MASKED)
    maximum = jnp.maximum(partial.maximum, scores.max(axis=-1))
    weights = jnp.where(allowed, jnp.exp(scores - maximum[..., None]), 0.0)
    factor = jnp.where(maximum == partial.maximum, 1.0, jnp.exp(partial.maximum - maximum))
    added = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    denominator = partial.denominator * factor + weights.sum(axis=-1)
    return PartialAttention(maximum, denominator, partial.numerator * factor[..., None] + added)


def attend_pages(
    partial: PartialAttention,
    q: Float[Array, "batch kv_heads queries head_dim"],
    pages: Pages,
    layer: Int[Array, ""],
    page_table: Int[Array, "batch blocks"],
    first: Int[Array, " batch"],
    end: Int[Array, " batch"],
    used: Int[Array, ""],
    positions: Int[Array, "batch queries"],
    window: Int[Array, ""] | None,
) -> PartialAttention:
    """`partial` with one layer's keys and values of some pages added.

    Args:
      q: already scaled by head_dim**-0.5.
      page_table: per row, the numbers of its pages, in the order of their positions.
      first: per row, which page of its sequence the table begins with: entry i holds the positions from
        (first + i) * KEY_BLOCK on.
      end: per row, the position from which on nothing is seen.
      used: how many entries of the table are read, the same for all rows.
      positions: of the queries; only a sliding window looks at them.
      window: how many positions a query sees, its own included; None for all.
    """
    given = partial, q, pages, layer, page_table, first, end, used, positions, window
    if kernels.can_attend_pages(q):
        return jax.lax.platform_dependent(*given, tpu=kernels.attend_pages, default=_attend_pages)
    return _attend_pages(*given)


def _attend_pages(
    partial: PartialAttention, q, pages: Pages, layer, page_table, first, end, used, positions, window
) -> PartialAttention:
    def attend_page(number, partial):
        page = page_table[:, number]
        position = ((first + number) * KEY_BLOCK)[:, None] + jnp.arange(KEY_BLOCK)
        allowed = (position < end[:, None])[:, None, None]
        if window is not None:
            allowed &= (position[:, None] > positions[..., None] - window)[:, None]
        return attend(partial, q, pages.k[page, layer], pages.v[page, layer], allowed)

    return jax.lax.fori_loop(0, used, attend_page, partial)


def prefill_attention(q, k, v, pages: Pages, layer, page_table, before, window, reach):
    """Attention of new tokens, each of which sees what its sequence holds in pages and its own row up to itself.

    Args:
      q: [batch, length, kv_heads, group, head_dim], where `group` is the query heads per key-value head.
      k, v: [batch, length, kv_heads, head_dim], of the new tokens.
      layer: which layer of the pages to read.
      page_table: [batch, blocks], the pages of each row's sequence.
      before: [batch], how many tokens of the sequence lie in pages.
      window, reach: how many positions this layer sees and the most that any layer does; None for all.

    Returns:
      [batch, length, hidden].
    """
    with jax.named_scope("prefill_attention"):
        length, group = q.shape[1], q.shape[3]
        queries = _rows(q)
        positions = jnp.repeat(before[:, None] + jnp.arange(length), group, axis=1)
        used = -(-jnp.max(before) // KEY_BLOCK)
        first, nothing = jnp.zeros_like(before), no_attention(queries)
        cached = attend_pages(nothing, queries, pages, layer, page_table, first, before, used, positions, window)
        outputs = []
        for rows, keys, allowed in _causal_blocks(length, group, window, reach):
            block = PartialAttention(*(x[:, :, rows] for x in cached))
            block_k, block_v = k[:, keys].transpose(0, 2, 3, 1), v[:, keys].transpose(0, 2, 1, 3)
            allowed = jnp.repeat(allowed, group, axis=0)[None, None]
            outputs.append(_divided(attend(block, queries[:, :, rows], block_k, block_v, allowed), v.dtype))
        return _tokens(jnp.concatenate(outputs, axis=2), group)


def packed_attention(q, k, v, segments, window, reach):
    """Causal attention within segments: a token sees the tokens of its own segment up to itself.

    In the XLA version query heads that share a key-value head, and the tokens of a query block, are rows of one matrix:
    on a CPU that is twice as fast as an einsum over all heads, and blocks above the diagonal or out of reach are not
    computed at all.

    Args:
      q: [batch, length, kv_heads, group, head_dim], where `group` is the query heads per key-value head.
      k, v: [batch, length, kv_heads, head_dim].
      segments: [batch, length].
      window, reach: how many positions this layer sees and the most that any layer does; None for all.

    Returns:
      [batch, length, hidden].
    """

    def by_splash(q, k, v, segments, _):
        return kernels.splash_attention(q, k, v, segments, reach)

    def by_xla(q, k, v, segments, window):
        return _packed_attention(q, k, v, segments, window, reach)

    with jax.named_scope("attention"):
        if kernels.can_flash(q, window):
            return kernels.flash_attention(q, k, v, segments)
        if kernels.can_splash(q, window, reach):
            return jax.lax.platform_dependent(q, k, v, segments, window, tpu=by_splash, default=by_xla)
        return by_xla(q, k, v, segments, window)


def _packed_attention(q, k, v, segments, window, reach):
    batch, length, kv_heads, group, _ = q.shape
    q = _rows(q)
    k = k.transpose(0, 2, 3, 1)
    v = v.transpose(0, 2, 1, 3)
    outputs = []
    for rows, keys, causal in _causal_blocks(length, group, window, reach):
        tokens = slice(rows.start // group, rows.stop // group)
        allowed = causal & (segments[:, tokens, None] == segments[:, None, keys])
        scores = jnp.matmul(q[:, :, rows], k[..., keys], preferred_element_type=jnp.float32)
        scores = scores.reshape(batch, kv_heads, -1, group, scores.shape[-1])
        scores = jnp.where(allowed[:, None, :, None], scores, _MASKED)
        weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
        denominator = weights.sum(axis=-1).reshape(batch, kv_heads, -1, 1)
        weights = weights.reshape(batch, kv_heads, -1, weights.shape[-1]).astype(v.dtype)
        numerator = jnp.matmul(weights, v[:, :, keys], preferred_element_type=jnp.float32)
        outputs.append((numerator / denominator).astype(v.dtype))
    return _tokens(jnp.concatenate(outputs, axis=2), group)


def decode_attention(
    q: Float[Array, "slots kv_heads group head_dim"],
    cache: KVCache,
    pages: Pages,
    groups: tuple[SlotGroups, ...],
    layer: Int[Array, ""],
    window: Int[Array, ""] | None,
    starts: Int[Array, " slots"],
    positions: Int[Array, " slots"],
) -> Float[Array, "slots hidden"]:
    """Attention of one new token per slot, at `positions`: to the pages that `groups` give its slot, and to the keys
    that the slot has generated itself, this token's included, which begin at position `starts`."""
    with jax.named_scope("decode_attention"):
        slots, kv_heads, group, head_dim = q.shape
        q = q * head_dim**-0.5
        partial = no_attention(q)
        for some in groups:
            partial = _attend_shared_pages(partial, q, pages, some, layer, positions, window)
        oldest = jnp.zeros_like(positions) if window is None else jnp.maximum(positions - window + 1 - starts, 0)

        def attend_own(number, partial):
            index = number * KEY_BLOCK + jnp.arange(KEY_BLOCK)
            allowed = (index >= oldest[:, None]) & (index <= (positions - starts)[:, None])
            return attend(partial, q, cache.k[layer, number], cache.v[layer, number], allowed[:, None, None])

        used = jnp.minimum(jnp.max(positions - starts) // KEY_BLOCK + 1, cache.k.shape[1])
        partial = jax.lax.fori_loop(jnp.min(oldest) // KEY_BLOCK, used, attend_own, partial)
        return _divided(partial, q.dtype).reshape(slots, kv_heads * group * head_dim)


def _attend_shared_pages(
    partial: PartialAttention, q, pages, groups: SlotGroups, layer, positions, window
) -> PartialAttention:
    """`partial` with the pages of these groups added, a batch of groups at a time."""
    size, members = groups.slots.shape[1:]
    kv_heads, heads = q.shape[1:3]

    def by_group(x, batch):  # [slots, kv_heads, heads, ...] -> [groups, kv_heads, members * heads, ...]
        x = jnp.moveaxis(x.at[groups.slots[batch]].get(mode="clip"), 1, 2)
        return x.reshape(size, kv_heads, members * heads, *x.shape[4:])

    def by_slot(x):  # and back: [groups, members, kv_heads, heads, ...]
        return jnp.moveaxis(x.reshape(size, kv_heads, members, heads, *x.shape[3:]), 2, 1)

    def attend_batch(batch, partial):
        slots = groups.slots[batch]
        query_positions = jnp.repeat(positions.at[slots].get(mode="clip"), heads, axis=1)
        before = PartialAttention(*(by_group(x, batch) for x in partial))
        after = attend_pages(
            before, by_group(q, batch), pages, layer, groups.page_table[batch], groups.first[batch], groups.end[batch],
            jnp.max(groups.count[batch]), query_positions, window,
        )  # fmt: skip
        changed = zip(partial, after, strict=True)
        return PartialAttention(*(old.at[slots].set(by_slot(new), mode="drop") for old, new in changed))

    return jax.lax.fori_loop(0, groups.batches, attend_batch, partial)


def _rows(q):
    """Scaled queries as [batch, kv_heads, length * group, head_dim]."""
    batch, length, kv_heads, group, head_dim = q.shape
    return q.transpose(0, 2, 1, 3, 4).reshape(batch, kv_heads, length * group, head_dim) * head_dim**-0.5


def _tokens(x, group: int):
    """[batch, kv_heads, length * group, head_dim] as [batch, length, hidden]."""
    batch, kv_heads, rows, head_dim = x.shape
    x = x.reshape(batch, kv_heads, rows // group, group, head_dim)
    return x.transpose(0, 2, 1, 3, 4).reshape(batch, rows // group, kv_heads * group * head_dim)


def _causal_blocks(length: int, group: int, window, reach: int | None):
    """Per block of queries: its rows (tokens times group), the slice of keys within its reach, and which of these keys
    each token may see [tokens, keys]."""
    index = jnp.arange(length)
    for start in range(0, length, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, length)
        keys = slice(0 if reach is None else max(0, start - reach + 1), end)
        distance = index[start:end, None] - index[keys]
        allowed = distance >= 0
        if window is not None:
            allowed &= distance < window
        yield slice(start * group, end * group), keys, allowed


def _divided(partial: PartialAttention, dtype: DTypeLike):
    return (partial.numerator / partial.denominator[..., None]).astype(dtype)
