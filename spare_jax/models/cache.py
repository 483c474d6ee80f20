"""The key-value cache: prompts lie in pages that any number of sequences share, generated tokens in blocks per slot.

A prompt is a sequence of pieces that are computed one by one: guidelines, a problem, the steps of a solution. Position
p of a sequence lies in its page number p // KEY_BLOCK, counted from 0. A piece that ends inside a page leaves the rest
of the page empty; a piece that continues it begins with a copy of that page (`write_pages`). So a page that has been
written never changes, and sequences that continue the same piece in different ways can share all of its pages.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int

if TYPE_CHECKING:
    from spare_jax.models.config import DecoderConfig

KEY_BLOCK = 128  # positions of a page, and of a block of a slot; as wide as a TPU's vectors
HostOrDevice = Any  # a numpy array where the host fills it, a jax array inside a jitted function


class Pages(NamedTuple):
    """Keys (already rotated) and values of prompts; and for a page that holds the last token of a piece, the hidden
    state at that token, after the final norm: the first generated token is drawn from it."""

    k: Float[Array, "pages layers kv_heads head_dim key_block"]
    v: Float[Array, "pages layers kv_heads key_block head_dim"]
    hidden: Float[Array, "pages hidden"]


class KVCache(NamedTuple):
    """Keys (already rotated) and values of the tokens that each slot has generated, in blocks of KEY_BLOCK tokens.

    All slots' share of a block is contiguous, in the order in which the matmuls of a decode step read it: on a CPU that
    halves the time of the attention.
    """

    k: Float[Array, "layers blocks slots kv_heads head_dim key_block"]
    v: Float[Array, "layers blocks slots kv_heads key_block head_dim"]


class SlotGroups(NamedTuple):
    """Slots that share a prompt's prefix, in groups: the queries of a group are rows of one matrix, so each page that
    they share is fetched once for all of them (as in Hydragen, Juravsky et al. 2024). A slot is in at most one group; a
    prompt whose pages are shared in part is read by several SlotGroups, one behind the other. Groups are computed a
    batch at a time.
    """

    slots: Int[HostOrDevice, "batches groups members"]  # a number beyond the slots where a group has fewer members
    page_table: Int[HostOrDevice, "batches groups blocks"]  # the pages of a group, in the order of their positions
    first: Int[HostOrDevice, "batches groups"]  # which page of the sequence the table begins with
    count: Int[HostOrDevice, "batches groups"]  # how many entries of the table are read
    end: Int[HostOrDevice, "batches groups"]  # the position from which on nothing is read
    batches: Int[HostOrDevice, ""]  # how many batches hold any group


class PageWrites(NamedTuple):
    """Where `write_pages` puts each row of a batch. Writes to page numbers that do not exist are dropped."""

    source: Int[HostOrDevice, "batch"]  # the page, filled in part, that the row continues
    filled: Int[HostOrDevice, "batch"]  # how many positions of it are filled; 0 where the row begins a page
    length: Int[HostOrDevice, "batch"]  # tokens of the row, without its padding
    pages: Int[HostOrDevice, "batch blocks"]  # the pages to write
    last: Int[HostOrDevice, "batch"]  # the page of the row's last token


def init_pages(config: "DecoderConfig", pages: int, dtype: DTypeLike = jnp.float32) -> Pages:
    """`pages` empty pages."""
    shape = (pages, config.num_layers, config.num_kv_heads)
    return Pages(
        k=jnp.zeros((*shape, config.head_dim, KEY_BLOCK), dtype),
        v=jnp.zeros((*shape, KEY_BLOCK, config.head_dim), dtype),
        hidden=jnp.zeros((pages, config.hidden_size), dtype),
    )


def init_cache(config: "DecoderConfig", slots: int, length: int, dtype: DTypeLike = jnp.float32) -> KVCache:
    """An empty cache for `length` tokens per slot, rounded up to a multiple of KEY_BLOCK."""
    shape = (config.num_layers, blocks_of(length), slots, config.num_kv_heads)
    return KVCache(
        k=jnp.zeros((*shape, config.head_dim, KEY_BLOCK), dtype),
        v=jnp.zeros((*shape, KEY_BLOCK, config.head_dim), dtype),
    )


def blocks_of(length: int) -> int:
    """How many blocks, or pages, `length` tokens take."""
    return -(-length // KEY_BLOCK)


def write_pages(
    pages: Pages,
    hidden: Float[Array, "batch length hidden"],
    k: Float[Array, "layers batch length kv_heads head_dim"],
    v: Float[Array, "layers batch length kv_heads head_dim"],
    writes: PageWrites,
) -> Pages:
    """The pages with what a prefill computed written into them; a row that continues a page filled in part first gets
    a copy of it.

    Positions behind a row's end in its last page get finite values that mean nothing.
    """
    length, blocks = k.shape[2], writes.pages.shape[1]
    token = jnp.arange(blocks * KEY_BLOCK) - writes.filled[:, None]
    index = jnp.clip(token, 0, length - 1)[None, :, :, None, None]

    def blocked(x, source, axes):
        x = jnp.take_along_axis(_finite(x), index, axis=2)
        x = x.reshape(*x.shape[:2], blocks, KEY_BLOCK, *x.shape[3:]).transpose(axes)
        old = (token[:, :KEY_BLOCK] < 0)[:, None, None]
        old = old[..., None, :] if axes[-1] == 3 else old[..., None]
        return x.at[:, 0].set(jnp.where(old, source, x[:, 0]))

    last = jnp.take_along_axis(hidden, writes.length[:, None, None] - 1, axis=1)[:, 0]
    return Pages(
        k=pages.k.at[writes.pages].set(blocked(k, pages.k[writes.source], (1, 2, 0, 4, 5, 3)), mode="drop"),
        v=pages.v.at[writes.pages].set(blocked(v, pages.v[writes.source], (1, 2, 0, 4, 3, 5)), mode="drop"),
        hidden=pages.hidden.at[writes.last].set(last, mode="drop"),
    )


def write_token(
    cache: KVCache,
    layer: Int[Array, ""],
    index: Int[Array, " slots"],
    k: Float[Array, "slots kv_heads head_dim"],
    v: Float[Array, "slots kv_heads head_dim"],
) -> KVCache:
    """The cache with one layer's key and value of each slot's generated token number `index`, from 0, written."""
    slots, block, offset = jnp.arange(index.shape[0]), index // KEY_BLOCK, index % KEY_BLOCK
    return KVCache(
        k=cache.k.at[layer, block, slots, :, :, offset].set(_finite(k)),
        v=cache.v.at[layer, block, slots, :, offset].set(_finite(v)),
    )


def _finite(x):
    """NaN and infinities as 0. A masked key has weight 0, and 0 times NaN would be NaN for the next sequence that gets
    this place; the sequence that made the NaN fails by its hidden state, which keeps it."""
    return jnp.where(jnp.isfinite(x), x, 0)
