"""Samples the next token of each slot, reproducibly: a draw depends on its request alone.

The key of token t of sample k is `fold_in(fold_in(fold_in(key(seed), digest32(request id)), k), t)`: neither the batch,
the slot, the order nor a restart enters it. One uniform random number per token is turned into an id by inverting the
cumulative distribution; the Gumbel trick would need a random number per vocabulary entry.
"""

import hashlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt32


def digest32(request_id: str) -> int:
    """A blake2b digest of a request id, as an unsigned 32-bit number; the same on every machine."""
    return int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=4).digest(), "big")


def sample_keys(
    seed_key: Key[Array, ""], digests: UInt32[Array, "slots"], samples: Int[Array, "slots"]
) -> Key[Array, "slots"]:
    """The key of each sample, from the seed's key, its request's `digest32` and its index among the request's
    samples."""
    return jax.vmap(lambda digest, k: jax.random.fold_in(jax.random.fold_in(seed_key, digest), k))(digests, samples)


def token_keys(keys: Key[Array, "slots"], counts: Int[Array, "slots"]) -> Key[Array, "slots"]:
    """The key of token number `counts`, from 0, of each sample."""
    return jax.vmap(jax.random.fold_in)(keys, counts)


def sample_tokens(
    logits: Float[Array, "slots vocab"],
    keys: Key[Array, "slots"],
    temperature: Float[Array, "slots"],
    top_p: Float[Array, "slots"],
    top_k: Int[Array, "slots"],
    allowed: Bool[Array, "slots vocab"] | None = None,
) -> tuple[Int[Array, "slots"], Float[Array, "slots"]]:
    """Draw one id per row.

    Args:
      logits: unnormalised log-probabilities.
      keys: one key per row, used for exactly one draw.
      temperature: 0 takes the most probable id, of equals the lowest.
      top_p: keep the fewest most probable ids that have at least this share of the probability that top_k left; 1
        keeps all.
      top_k: keep the k most probable ids; 0 keeps all.
      allowed: the ids that may be drawn, at least one per row; the filters apply to these. None for all.

    Returns:
      ids, and their log-probabilities in nats at temperature 1 without filters or mask. A row's result depends on that
      row alone, bit for bit. The random number has 23 bits, so smaller differences of probability have no effect.
    """
    logits = logits.astype(jnp.float32)
    possible = logits if allowed is None else jnp.where(allowed, logits, -jnp.inf)
    shifted = possible - possible.max(axis=-1, keepdims=True)
    # The largest logit is moved to 0 before the division, so that a tiny temperature cannot make inf - inf.
    tempered = shifted / jnp.where(temperature > 0, temperature, 1.0)[:, None]
    weights = jnp.exp(tempered)
    filters = (temperature > 0) & ((top_p < 1) | (top_k > 0))
    # A row without a filter has the same weights in both branches, so its result does not depend on the other rows.
    weights = jax.lax.cond(
        filters.any(),
        lambda: jnp.where(kept_by_filters(tempered, weights, top_p, top_k), weights, 0.0),
        lambda: weights,
    )
    uniforms = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32))(keys)
    drawn = invert_cumulative(weights, uniforms)
    ids = jnp.where(temperature > 0, drawn, first_maximum(shifted))
    maximum = logits.max(axis=-1, keepdims=True)
    chosen = jnp.take_along_axis(logits, ids[:, None], axis=-1) - maximum
    return ids, chosen[:, 0] - jnp.log(jnp.exp(logits - maximum).sum(axis=-1))


def kept_by_filters(
    tempered: Float[Array, "slots vocab"],
    weights: Float[Array, "slots vocab"],
    top_p: Float[Array, "slots"],
    top_k: Int[Array, "slots"],
) -> Bool[Array, "slots vocab"]:
    """Which ids are kept by top_k, and then by top_p among these; of equal logits the lowest ids.

    Needs `tempered` <= 0 and `weights` = exp(tempered). The limits are found by bisection, without sorting.
    """
    # The bits of a non-negative float, read as an integer, are ordered like the float: less depth, more probable.
    depth = jax.lax.bitcast_convert_type(jnp.abs(tempered), jnp.int32)
    some = jnp.where(top_k > 0, jnp.minimum(top_k, depth.shape[1]), depth.shape[1]).astype(jnp.float32)
    within_k = _most_probable(depth, jnp.ones_like(weights), some)
    left = jnp.where(within_k, weights, 0.0)
    mass = jnp.maximum(top_p * left.sum(axis=-1), jnp.finfo(jnp.float32).tiny)
    within_p = _most_probable(depth, left, mass)
    return within_k & (within_p | (top_p >= 1)[:, None])


def _most_probable(
    depth: Int[Array, "slots vocab"], amounts: Float[Array, "slots vocab"], wanted: Float[Array, "slots"]
) -> Bool[Array, "slots vocab"]:
    """The first ids, in order of depth and then of id, as few as have a sum of amounts of at least `wanted` > 0.

    Ids of the same depth must have the same amount or 0.
    """

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        enough = jnp.where(depth <= middle[:, None], amounts, 0.0).sum(axis=-1) >= wanted
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    zeros = jnp.zeros(depth.shape[0], jnp.int32)
    limit, _ = jax.lax.fori_loop(0, 31, halve, (zeros, zeros + jnp.iinfo(jnp.int32).max))
    above = depth < limit[:, None]
    mass_above = jnp.where(above, amounts, 0.0).sum(axis=-1)
    ties = (depth == limit[:, None]) & (amounts > 0)
    earlier_ties = jnp.cumsum(ties, axis=-1) - ties
    return above | (ties & (mass_above[:, None] + earlier_ties * amounts < wanted[:, None]))


def first_maximum(x: Float[Array, "slots vocab"]) -> Int[Array, "slots"]:
    """The lowest id of the greatest value per row. On a CPU this is ten times as fast as argmax over whole rows: only
    the block with the greatest value is searched."""
    blocks = _blocks(x, -jnp.inf)
    block = jnp.argmax(blocks.max(axis=2), axis=1)
    inside = jnp.argmax(jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0], axis=1)
    return (block * blocks.shape[2] + inside).astype(jnp.int32)


def invert_cumulative(weights: Float[Array, "slots vocab"], uniforms: Float[Array, "slots"]) -> Int[Array, "slots"]:
    """Draw an id per row with probability proportional to its weight, by a uniform number in [0, 1).

    The row is a table of blocks; first a column of it is drawn, then an id in the column, so that the whole row is read
    only once, for the sums of the columns.
    """
    blocks = _blocks(weights, 0.0)
    column, left = _walk(blocks.sum(axis=1), uniforms)
    block, _ = _walk(jnp.take_along_axis(blocks, column[:, None, None], axis=2)[:, :, 0], left)
    return block * blocks.shape[2] + column


def _walk(
    weights: Float[Array, "slots choices"], uniforms: Float[Array, "slots"]
) -> tuple[Int[Array, "slots"], Float[Array, "slots"]]:
    """The choice at which the cumulative weight passes the fraction `uniforms` of the total, and how far inside that
    choice's weight, as a fraction in [0, 1).

    It descends a binary tree of partial sums. Comparing with a cumulative sum, whose parts are rounded, could draw a
    choice of weight zero.
    """
    slots, choices = weights.shape
    depth = max(choices - 1, 0).bit_length()
    levels = [jnp.pad(weights, ((0, 0), (0, (1 << depth) - choices)))]
    while levels[-1].shape[1] > 1:
        half = levels[-1].shape[1] // 2
        levels.append(levels[-1][:, :half] + levels[-1][:, half:])
    # At a level of width w, node j has the children j and j + w in the level below it.
    left = uniforms * levels[-1][:, 0]
    node = jnp.zeros(slots, jnp.int32)
    for level in reversed(levels[:-1]):
        half = level.shape[1] // 2
        first = jnp.take_along_axis(level, node[:, None], axis=1)[:, 0]
        second = jnp.take_along_axis(level, node[:, None] + half, axis=1)[:, 0]
        go_second = (left >= first) & (second > 0)
        left = jnp.where(go_second, left - first, left)
        node = jnp.where(go_second, node + half, node)
    chosen = jnp.take_along_axis(weights, node[:, None], axis=1)[:, 0]
    return node, jnp.clip(left / chosen, 0.0, 1 - 2**-24)


def _blocks(x: Float[Array, "slots vocab"], filler: float) -> Float[Array, "slots blocks 128"]:
    """The rows, padded with `filler`, as blocks of 128."""
    slots, vocab = x.shape
    return jnp.pad(x, ((0, 0), (0, -vocab % 128)), constant_values=filler).reshape(slots, -1, 128)
