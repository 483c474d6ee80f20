"""Keys and values of what has been read: prompts in pages, which any number of sequences share, and what each slot has
generated itself.

A sequence is a chain of pieces: a prompt's guidelines, its problem, its steps. Position p of a prompt lies in the
page with number p // KEY_BLOCK of its chain. A piece that does not end at a page's end leaves a page that is filled in
part; whoever continues it takes a copy of that page (`store_pages`), so a page never changes once it is written.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int

if TYPE_CHECKING:
    from spare_jax.models.config import DecoderConfig

KEY_BLOCK = 128  # positions of a page, and of a block of a slot; as wide as a TPU's vectors
_Given = Any  # a numpy array where the host fills it, a jax array on the device


class Pages(NamedTuple):
    """Keys (already rotated) and values of prompts, and the hidden state (after the final norm) at the last token of
    every piece, by the page that holds this token."""

    k: Float[Array, "pages layers kv_heads head_dim key_block"]
    v: Float[Array, "pages layers kv_heads key_block head_dim"]
    hidden: Float[Array, "pages hidden"]


class KVCache(NamedTuple):
    """Keys (already rotated) and values of what each slot has generated, in blocks of KEY_BLOCK tokens.

    A block of all slots is contiguous and in the order in which the matmuls of a decode step read it: on a CPU that
    halves the time of the attention.
    """

    k: Float[Array, "layers blocks slots kv_heads head_dim key_block"]
    v: Float[Array, "layers blocks slots kv_heads key_block head_dim"]


class Readers(NamedTuple):
    """Which slots read which pages. A unit is some slots that read the same pages: their queries are one matrix, and
    a page is fetched once for all of them. Units are read a tile at a time. A slot is in at most one unit; one that
    reads more than these pages is in other Readers for them.
    """

    slots: Int[_Given, "tiles units members"]  # a number that is no slot's where a unit has fewer
    pages: Int[_Given, "tiles units blocks"]
    first: Int[_Given, "tiles units"]  # which page of its chain a unit's first is
    count: Int[_Given, "tiles units"]  # how many pages it reads
    end: Int[_Given, "tiles units"]  # positions from here on are not read
    tiles: Int[_Given, ""]  # how many tiles have units


class Piece(NamedTuple):
    """Where `store_pages` puts the rows of a batch; page numbers that do not exist are left out."""

    source: Int[_Given, "batch"]  # the page that is filled in part, and is continued
    filled: Int[_Given, "batch"]  # how many of its positions are; 0 where there is none
    length: Int[_Given, "batch"]  # tokens of the piece
    pages: Int[_Given, "batch blocks"]  # where to
    last: Int[_Given, "batch"]  # the page of the last token


def init_pages(config: "DecoderConfig", pages: int, dtype: DTypeLike = jnp.float32) -> Pages:
    """Empty pages."""
    shape = (pages, config.num_layers, config.num_kv_heads)
    return Pages(
        k=jnp.zeros((*shape, config.head_dim, KEY_BLOCK), dtype),
        v=jnp.zeros((*shape, KEY_BLOCK, config.head_dim), dtype),
        hidden=jnp.zeros((pages, config.hidden_size), dtype),
    )


def init_cache(config: "DecoderConfig", slots: int, length: int, dtype: DTypeLike = jnp.float32) -> KVCache:
    """An empty cache. `length`, in tokens, is rounded up to a multiple of KEY_BLOCK."""
    shape = (config.num_layers, blocks_of(length), slots, config.num_kv_heads)
    return KVCache(
        k=jnp.zeros((*shape, config.head_dim, KEY_BLOCK), dtype),
        v=jnp.zeros((*shape, KEY_BLOCK, config.head_dim), dtype),
    )


def blocks_of(length: int) -> int:
    """How many blocks hold so many tokens."""
    return -(-length // KEY_BLOCK)


def store_pages(
    pages: Pages,
    hidden: Float[Array, "batch length hidden"],
    k: Float[Array, "layers batch length kv_heads head_dim"],
    v: Float[Array, "layers batch length kv_heads head_dim"],
    piece: Piece,
) -> Pages:
    """Put what `extend` computed into pages, behind a copy of what the first page held already.

    Positions of the last page behind the piece's end are overwritten with finite values.
    """
    length, blocks = k.shape[2], piece.pages.shape[1]
    token = jnp.arange(blocks * KEY_BLOCK) - piece.filled[:, None]
    index = jnp.clip(token, 0, length - 1)[None, :, :, None, None]

    def blocked(x, source, axes):
        x = jnp.take_along_axis(_finite(x), index, axis=2)
        x = x.reshape(*x.shape[:2], blocks, KEY_BLOCK, *x.shape[3:]).transpose(axes)
        old = (token[:, :KEY_BLOCK] < 0)[:, None, None]
        old = old[..., None, :] if axes[-1] == 3 else old[..., None]
        return x.at[:, 0].set(jnp.where(old, source, x[:, 0]))

    last = jnp.take_along_axis(hidden, piece.length[:, None, None] - 1, axis=1)[:, 0]
    return Pages(
        k=pages.k.at[piece.pages].set(blocked(k, pages.k[piece.source], (1, 2, 0, 4, 5, 3)), mode="drop"),
        v=pages.v.at[piece.pages].set(blocked(v, pages.v[piece.source], (1, 2, 0, 4, 3, 5)), mode="drop"),
        hidden=pages.hidden.at[piece.last].set(last, mode="drop"),
    )


def write_token(
    cache: KVCache,
    layer: Int[Array, ""],
    index: Int[Array, " slots"],
    k: Float[Array, "slots kv_heads head_dim"],
    v: Float[Array, "slots kv_heads head_dim"],
) -> KVCache:
    """Keys and values of token `index` of each slot."""
    slots, block, offset = jnp.arange(index.shape[0]), index // KEY_BLOCK, index % KEY_BLOCK
    return KVCache(
        k=cache.k.at[layer, block, slots, :, :, offset].set(_finite(k)),
        v=cache.v.at[layer, block, slots, :, offset].set(_finite(v)),
    )


def _finite(x):
    """No NaN stays in a cache: a weight of 0 times NaN would reach whoever gets the place next. The sequence that made
    it has a hidden state of NaN, and fails by that."""
    return jnp.where(jnp.isfinite(x), x, 0)
