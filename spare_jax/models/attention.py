"""Softmax attention over blocks of keys, merged by log-sum-exp.

`Seen` is attention over the keys seen so far; `see` adds keys to it. Adding keys that a query may not see leaves its
`Seen` exactly as it was (the factor is 1 and nothing is added), so a query's bits depend neither on how many blocks
the others need nor on what is allocated. Scores, sums and the mixed values are float32.

Queries that share keys are rows of one matrix: the heads of a key-value group, the tokens of a prompt, the samples of
a problem.

`packed_attention` and `see_pages` are computed by XLA here, and by the kernels of kernels.py where there are some: both
on a TPU, the first on a GPU.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from spare_jax.models import kernels
from spare_jax.models.cache import KEY_BLOCK, KVCache, Pages, Readers

QUERY_BLOCK = 128  # queries of a prompt attend in blocks of this size: keys after a block's end are never computed
_MASKED = -1e30  # finite: a row that is masked everywhere (padding) must not become NaN


class Seen(NamedTuple):
    """Attention over some keys, per query."""

    maximum: Float[Array, "batch kv_heads queries"]  # of the scores
    total: Float[Array, "batch kv_heads queries"]  # sum of exp(score - maximum)
    mixed: Float[Array, "batch kv_heads queries head_dim"]  # sum of exp(score - maximum) * value


def see_nothing(q: Float[Array, "batch kv_heads queries head_dim"]) -> Seen:
    """No keys yet."""
    zeros = jnp.zeros(q.shape[:-1], jnp.float32)
    return Seen(zeros + _MASKED, zeros, jnp.zeros(q.shape, jnp.float32))


def see(
    seen: Seen,
    q: Float[Array, "batch kv_heads queries head_dim"],
    k: Float[Array, "batch kv_heads head_dim keys"],
    v: Float[Array, "batch kv_heads keys head_dim"],
    allowed: Bool[Array, "batch #kv_heads #queries keys"],
) -> Seen:
    """`seen` and these keys. `q` is scaled by head_dim**-0.5 already."""
    scores = jnp.matmul(q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(allowed, scores, _MASKED)
    maximum = jnp.maximum(seen.maximum, scores.max(axis=-1))
    weights = jnp.where(allowed, jnp.exp(scores - maximum[..., None]), 0.0)
    factor = jnp.where(maximum == seen.maximum, 1.0, jnp.exp(seen.maximum - maximum))
    added = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return Seen(maximum, seen.total * factor + weights.sum(axis=-1), seen.mixed * factor[..., None] + added)


def see_pages(
    seen: Seen,
    q: Float[Array, "batch kv_heads queries head_dim"],
    pages: Pages,
    layer: Int[Array, ""],
    table: Int[Array, "batch blocks"],
    first: Int[Array, " batch"],
    end: Int[Array, " batch"],
    used: Int[Array, ""],
    positions: Int[Array, "batch queries"],
    window: Int[Array, ""] | None,
) -> Seen:
    """`seen` and the first `used` pages of each row of `table`, which hold the sequence's positions from
    first * KEY_BLOCK on; those from `end` on, and those beyond a query's window, are not seen."""
    given = seen, q, pages, layer, table, first, end, used, positions, window
    if kernels.can_see_pages(q):
        return jax.lax.platform_dependent(*given, tpu=kernels.see_pages, default=_see_pages)
    return _see_pages(*given)


def _see_pages(seen: Seen, q, pages: Pages, layer, table, first, end, used, positions, window) -> Seen:
    def see_page(number, seen):
        page = table[:, number]
        position = ((first + number) * KEY_BLOCK)[:, None] + jnp.arange(KEY_BLOCK)
        allowed = (position < end[:, None])[:, None, None]
        if window is not None:
            allowed &= (position[:, None] > positions[..., None] - window)[:, None]
        return see(seen, q, pages.k[page, layer], pages.v[page, layer], allowed)

    return jax.lax.fori_loop(0, used, see_page, seen)


def extending_attention(q, k, v, pages: Pages, layer, table, before, window, reach):
    """Attention of tokens that continue sequences, q [batch, length, kv_heads, group, head_dim] -> [batch, length,
    hidden]: to the `before` [batch] tokens in the pages of `table`, and to those of their own row up to themselves."""
    with jax.named_scope("extending_attention"):
        length, group = q.shape[1], q.shape[3]
        queries = _rows(q)
        positions = jnp.repeat(before[:, None] + jnp.arange(length), group, axis=1)
        used = -(-jnp.max(before) // KEY_BLOCK)
        first = jnp.zeros_like(before)
        seen = see_pages(see_nothing(queries), queries, pages, layer, table, first, before, used, positions, window)
        outputs = []
        for rows, keys, allowed in _causal_blocks(length, group, window, reach):
            block = Seen(seen.maximum[:, :, rows], seen.total[:, :, rows], seen.mixed[:, :, rows])
            block_k, block_v = k[:, keys].transpose(0, 2, 3, 1), v[:, keys].transpose(0, 2, 1, 3)
            allowed = jnp.repeat(allowed, group, axis=0)[None, None]
            outputs.append(_result(see(block, queries[:, :, rows], block_k, block_v, allowed), v.dtype))
        return _tokens(jnp.concatenate(outputs, axis=2), group)


def packed_attention(q, k, v, segments, window, reach):
    """Causal attention within segments; q [batch, length, kv_heads, group, head_dim] -> [batch, length, hidden].

    `window` is this layer's (None: no layer has one) and may be traced; `reach`, a Python int, bounds that of every
    layer (None: unbounded). The queries of one key-value head are folded into one matrix per query block: on a CPU
    that is twice as fast as an einsum over all heads, and blocks above the diagonal or out of reach are not computed
    at all.
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
        total = weights.sum(axis=-1).reshape(batch, kv_heads, -1, 1)
        weights = weights.reshape(batch, kv_heads, -1, weights.shape[-1]).astype(v.dtype)
        mixed = jnp.matmul(weights, v[:, :, keys], preferred_element_type=jnp.float32)
        outputs.append((mixed / total).astype(v.dtype))
    return _tokens(jnp.concatenate(outputs, axis=2), group)


def cached_attention(
    q: Float[Array, "slots kv_heads group head_dim"],
    cache: KVCache,
    pages: Pages,
    readers: tuple[Readers, ...],
    layer: Int[Array, ""],
    window: Int[Array, ""] | None,
    starts: Int[Array, " slots"],
    positions: Int[Array, " slots"],
) -> Float[Array, "slots hidden"]:
    """Attention of one query per slot: to the pages that `readers` name, and to what the slot has generated itself,
    which stands from position `starts` to `positions`."""
    with jax.named_scope("cached_attention"):
        slots, kv_heads, group, head_dim = q.shape
        q = q * head_dim**-0.5
        seen = see_nothing(q)
        for some in readers:
            seen = _see_together(seen, q, pages, some, layer, positions, window)
        oldest = jnp.zeros_like(positions) if window is None else jnp.maximum(positions - window + 1 - starts, 0)

        def see_own(number, seen):
            index = number * KEY_BLOCK + jnp.arange(KEY_BLOCK)
            allowed = (index >= oldest[:, None]) & (index <= (positions - starts)[:, None])
            return see(seen, q, cache.k[layer, number], cache.v[layer, number], allowed[:, None, None])

        used = jnp.minimum(jnp.max(positions - starts) // KEY_BLOCK + 1, cache.k.shape[1])
        seen = jax.lax.fori_loop(jnp.min(oldest) // KEY_BLOCK, used, see_own, seen)
        return _result(seen, q.dtype).reshape(slots, kv_heads * group * head_dim)


def _see_together(seen: Seen, q, pages, readers: Readers, layer, positions, window) -> Seen:
    """Add the pages of `readers`."""
    size, members = readers.slots.shape[1:]
    kv_heads, group = q.shape[1:3]

    def of_units(x, tile):  # [slots, kv_heads, group, ...] -> [units, kv_heads, members * group, ...]
        x = jnp.moveaxis(x.at[readers.slots[tile]].get(mode="clip"), 1, 2)
        return x.reshape(size, kv_heads, members * group, *x.shape[4:])

    def of_slots(x):  # and back: [units, members, kv_heads, group, ...]
        return jnp.moveaxis(x.reshape(size, kv_heads, members, group, *x.shape[3:]), 2, 1)

    def see_tile(tile, seen):
        slots = readers.slots[tile]
        unit_positions = jnp.repeat(positions.at[slots].get(mode="clip"), group, axis=1)
        before = Seen(*(of_units(x, tile) for x in seen))
        after = see_pages(
            before, of_units(q, tile), pages, layer, readers.pages[tile], readers.first[tile], readers.end[tile],
            jnp.max(readers.count[tile]), unit_positions, window,
        )  # fmt: skip
        return Seen(*(old.at[slots].set(of_slots(new), mode="drop") for old, new in zip(seen, after, strict=True)))

    return jax.lax.fori_loop(0, readers.tiles, see_tile, seen)


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
    """Per block of queries: its rows (tokens times group), the keys within its reach, and which token may see which
    key [tokens, keys]."""
    index = jnp.arange(length)
    for start in range(0, length, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, length)
        keys = slice(0 if reach is None else max(0, start - reach + 1), end)
        distance = index[start:end, None] - index[keys]
        allowed = distance >= 0
        if window is not None:
            allowed &= distance < window
        yield slice(start * group, end * group), keys, allowed


def _result(seen: Seen, dtype: DTypeLike):
    return (seen.mixed / seen.total[..., None]).astype(dtype)
