"""The device side of the local engine: sequences in fixed slots, decoded many steps at a time.

All functions are pure; shapes never depend on requests, so each compiles once. Whatever a request may choose is an
array.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Key, UInt32

from spare_jax.engines.grammar import GrammarTables, Place, advance, allowed_tokens
from spare_jax.engines.sampling import sample_keys, sample_tokens, token_keys
from spare_jax.models.cache import KVCache, Pages, Readers, init_cache
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import Decoder, decode_step, logits

MAX_STOPS = 32
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

    cache: KVCache  # what the slots have generated; meaningful at indices < drawn
    hidden: Float[Array, "slots hidden"]  # after the final norm, at the last token: the next token's source
    start: Int[Array, "slots"]  # tokens of the prompt, which lies in pages
    drawn: Int[Array, "slots"]  # tokens generated so far; less than the limit where active
    active: Bool[Array, "slots"]  # whether the next token of this slot is wanted
    key_data: UInt32[Array, "slots words"]  # key of the sample; token t is drawn with fold_in(key, t)
    settings: Settings
    place: Place  # in its grammar


class Admission(NamedTuple):
    """Samples that enter slots together. Entries past the last sample have a slot number >= slots and are dropped."""

    slot: Int[_Given, "entries"]  # where to; each at most once
    page: Int[_Given, "entries"]  # the page of the prompt's last token
    start: Int[_Given, "entries"]  # tokens of the prompt
    digest: UInt32[_Given, "entries"]  # digest32 of the request id
    sample: Int[_Given, "entries"]  # index among the request's n samples
    settings: Settings  # per entry
    place: Place  # at the start of its grammar


def empty_slots(config: DecoderConfig, slots: int, length: int, dtype: DTypeLike) -> SlotState:
    """All slots idle; `length` is how many tokens a slot can generate."""
    zeros = jnp.zeros(slots, jnp.int32)
    # Each field has its own buffer: the state is donated, and one buffer cannot be donated twice.
    return SlotState(
        cache=init_cache(config, slots, length, dtype),
        hidden=jnp.zeros((slots, config.hidden_size), dtype),
        start=zeros + 0,
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
        place=Place(*(zeros + 0 for _ in Place._fields)),
    )


def insert(state: SlotState, pages: Pages, entering: Admission, seed_key: Key[Array, ""]) -> SlotState:
    """Make the slots of these samples active, each behind its prompt."""
    keys = sample_keys(seed_key, entering.digest, entering.sample)

    def put(old, new):
        return old.at[entering.slot].set(new, mode="drop")

    return SlotState(
        cache=state.cache,
        hidden=put(state.hidden, pages.hidden[entering.page]),
        start=put(state.start, entering.start),
        drawn=put(state.drawn, 0),
        active=put(state.active, True),
        key_data=put(state.key_data, jax.random.key_data(keys)),
        settings=jax.tree.map(put, state.settings, entering.settings),
        place=jax.tree.map(put, state.place, entering.place),
    )


def decode_chunk(
    model: Decoder,
    state: SlotState,
    pages: Pages,
    readers: tuple[Readers, ...],
    tables: GrammarTables | None,
    steps: int,
) -> tuple[SlotState, Int[Array, "rows slots"]]:
    """Generate up to `steps` tokens in every active slot; stops early when none is active. `readers` says which pages
    hold the prompt of each slot, `tables` what their grammars allow; None where no slot has one.

    Returns:
      the new state, and all that the host needs in one array: `steps` rows of ids (-1 where a slot drew none),
      `steps` rows of log-probabilities (the bits of float32), one row of `active`.
    """
    slots = state.drawn.shape[0]

    def unfinished(carry):
        step, state, _, _ = carry
        return (step < steps) & state.active.any()

    def draw(carry):
        step, state, ids, logprobs = carry
        settings, place = state.settings, state.place
        scores = logits(model, state.hidden)
        allowed = tables and allowed_tokens(tables, place, settings.limit - state.drawn, scores.shape[1])
        keys = token_keys(jax.random.wrap_key_data(state.key_data), state.drawn)
        token, logprob = sample_tokens(scores, keys, settings.temperature, settings.top_p, settings.top_k, allowed)
        ids = ids.at[step].set(jnp.where(state.active, token, -1))
        logprobs = logprobs.at[step].set(logprob)
        drawn = state.drawn + state.active
        active = state.active & (drawn < settings.limit) & (token[:, None] != settings.stops).all(axis=1)
        if tables is not None:
            place, complete = advance(tables, place, token)
            active &= ~complete
        active &= jnp.isfinite(logprob)  # a slot whose logits are NaN ends, and the host sees by this why
        # An idle slot takes part at its start, where it costs the attention least and hurts nobody.
        position = state.start + jnp.where(active, state.drawn, 0)
        hidden, cache = decode_step(model, state.cache, pages, readers, token, state.start, position)
        state = state._replace(cache=cache, hidden=hidden, drawn=drawn, active=active, place=place)
        return step + 1, state, ids, logprobs

    ids = jnp.full((steps, slots), -1, jnp.int32)
    logprobs = jnp.zeros((steps, slots), jnp.float32)
    _, state, ids, logprobs = jax.lax.while_loop(unfinished, draw, (0, state, ids, logprobs))
    bits = jax.lax.bitcast_convert_type(logprobs, jnp.int32)
    return state, jnp.concatenate([ids, bits, state.active[None].astype(jnp.int32)])
