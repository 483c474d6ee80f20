"""The device side of the local engine: sequences in fixed slots, decoded many steps at a time.

All functions are pure; shapes never depend on requests, so each compiles once (`prefill_prompts` and `insert` once
per prompt bucket). Whatever a request may choose is an array.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Key, UInt32

from spare_jax.engines.sampling import sample_keys, sample_tokens, token_keys
from spare_jax.models.decoder import (
    Decoder,
    DecoderConfig,
    KVCache,
    decode_step,
    init_cache,
    insert_prompts,
    logits,
    prefill,
)

MAX_STOPS = 8
_Given = Any  # a numpy array where the host fills it, a jax array on the device


class Settings(NamedTuple):
    """What a request asks for, per slot."""

    limit: Int[_Given, "slots"]  # most tokens to generate, >= 1
    temperature: Float[_Given, "slots"]  # >= 0; 0 is greedy
    top_p: Float[_Given, "slots"]  # in (0, 1]; 1 is off
    top_k: Int[_Given, "slots"]  # >= 0; 0 is off
    stops: Int[_Given, "slots max_stops"]  # ids that end the sequence, padded with -1, which is no id


class SlotState(NamedTuple):
    """One sequence per slot. An idle slot (not active) holds the rest of an old one, which is never read."""

    cache: KVCache  # meaningful at positions < length of the slot
    hidden: Float[Array, "slots hidden"]  # after the final norm, at position length - 1: the next token's source
    length: Int[Array, "slots"]  # tokens in the cache = prompt tokens + drawn, where active
    drawn: Int[Array, "slots"]  # tokens generated so far; less than the limit where active
    active: Bool[Array, "slots"]  # whether the next token of this slot is wanted
    key_data: UInt32[Array, "slots words"]  # key of the sample; token t is drawn with fold_in(key, t)
    settings: Settings


class Admission(NamedTuple):
    """Samples that enter slots together. Entries past the last sample have a slot number >= slots and are dropped."""

    slot: Int[_Given, "entries"]  # where to; each at most once
    row: Int[_Given, "entries"]  # which row of the prefilled batch
    length: Int[_Given, "entries"]  # tokens of the prompt
    digest: UInt32[_Given, "entries"]  # digest32 of the request id
    sample: Int[_Given, "entries"]  # index among the request's n samples
    settings: Settings  # per entry


class Prefilled(NamedTuple):
    """What a batch of prompts leaves behind for its samples to start from."""

    hidden: Float[Array, "batch hidden"]  # after the final norm, at the last token of each prompt
    k: Float[Array, "layers batch bucket kv_heads head_dim"]  # meaningful at positions < the prompt's length
    v: Float[Array, "layers batch bucket kv_heads head_dim"]


def empty_slots(config: DecoderConfig, slots: int, length: int, dtype: DTypeLike) -> SlotState:
    """All slots idle; `length` is what the cache can hold per slot, in tokens."""
    zeros = jnp.zeros(slots, jnp.int32)
    # Each field has its own buffer: the state is donated, and one buffer cannot be donated twice.
    return SlotState(
        cache=init_cache(config, slots, length, dtype),
        hidden=jnp.zeros((slots, config.hidden_size), dtype),
        length=zeros + 0,
        drawn=zeros + 0,
        active=jnp.zeros(slots, bool),
        # Data and not keys: the sharding of a key array is not fixed by out_shardings down to its last axis.
        key_data=jnp.zeros((slots, *jax.random.key_data(jax.random.key(0)).shape), jnp.uint32),
        settings=Settings(
            limit=zeros + 1,
            temperature=jnp.zeros(slots),
            top_p=jnp.ones(slots),
            top_k=zeros + 0,
            stops=jnp.full((slots, MAX_STOPS), -1, jnp.int32),
        ),
    )


def prefill_prompts(
    model: Decoder, ids: Int[Array, "batch bucket"], lengths: Int[Array, "batch"], dtype: DTypeLike
) -> Prefilled:
    """Run prompts that start at position 0 and are padded on the right; each has at least one token."""
    hidden, k, v = prefill(model, ids, lengths, dtype=dtype)
    return Prefilled(jnp.take_along_axis(hidden, lengths[:, None, None] - 1, axis=1)[:, 0], k, v)


def insert(state: SlotState, prefilled: Prefilled, entering: Admission, seed_key: Key[Array, ""]) -> SlotState:
    """Copy prompts to the slots of their samples and make these active."""
    slot, row = entering.slot, entering.row
    keys = sample_keys(seed_key, entering.digest, entering.sample)

    def put(old, new):
        return old.at[slot].set(new, mode="drop")

    return SlotState(
        cache=insert_prompts(state.cache, prefilled.k, prefilled.v, row, slot),
        hidden=put(state.hidden, prefilled.hidden[row]),
        length=put(state.length, entering.length),
        drawn=put(state.drawn, 0),
        active=put(state.active, True),
        key_data=put(state.key_data, jax.random.key_data(keys)),
        settings=jax.tree.map(put, state.settings, entering.settings),
    )


def decode_chunk(model: Decoder, state: SlotState, steps: int) -> tuple[SlotState, Int[Array, "rows slots"]]:
    """Generate up to `steps` tokens in every active slot; stops early when none is active.

    Returns:
      the new state, and all that the host needs in one array: `steps` rows of ids (-1 where a slot drew none),
      `steps` rows of log-probabilities (the bits of float32), one row of `active`. See `read_chunk`.
    """
    slots = state.length.shape[0]

    def unfinished(carry):
        step, state, _, _ = carry
        return (step < steps) & state.active.any()

    def advance(carry):
        step, state, ids, logprobs = carry
        settings = state.settings
        token, logprob = sample_tokens(
            logits(model, state.hidden),
            token_keys(jax.random.wrap_key_data(state.key_data), state.drawn),
            settings.temperature,
            settings.top_p,
            settings.top_k,
        )
        ids = ids.at[step].set(jnp.where(state.active, token, -1))
        logprobs = logprobs.at[step].set(logprob)
        drawn = state.drawn + state.active
        active = state.active & (drawn < settings.limit) & (token[:, None] != settings.stops).all(axis=1)
        # An idle slot takes part at position 0, where it costs the attention least and hurts nobody.
        hidden, cache = decode_step(model, state.cache, token, jnp.where(active, state.length, 0))
        state = state._replace(cache=cache, hidden=hidden, length=state.length + active, drawn=drawn, active=active)
        return step + 1, state, ids, logprobs

    ids = jnp.full((steps, slots), -1, jnp.int32)
    logprobs = jnp.zeros((steps, slots), jnp.float32)
    _, state, ids, logprobs = jax.lax.while_loop(unfinished, advance, (0, state, ids, logprobs))
    bits = jax.lax.bitcast_convert_type(logprobs, jnp.int32)
    return state, jnp.concatenate([ids, bits, state.active[None].astype(jnp.int32)])
