"""The decode loop of the local engine: one sequence in each of a fixed number of slots, many steps per call.

All functions are pure. No shape depends on a request, and what a request may choose is an array, so each function
compiles once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Key, UInt32

from spare_jax.engines.grammar import GrammarState, GrammarTables, advance, allowed_tokens
from spare_jax.engines.sampling import sample_keys, sample_tokens, token_keys
from spare_jax.models.cache import HostOrDevice, KVCache, Pages, SlotGroups, init_cache
from spare_jax.models.config import DecoderConfig
from spare_jax.models.decoder import Decoder, decode_step, logits

MAX_STOPS = 32  # stop ids of a request


class Settings(NamedTuple):
    """How the request in each slot is to be sampled."""

    max_tokens: Int[HostOrDevice, "slots"]  # most tokens to generate, >= 1
    temperature: Float[HostOrDevice, "slots"]  # >= 0; 0 is greedy
    top_p: Float[HostOrDevice, "slots"]  # in (0, 1]; 1 is off
    top_k: Int[HostOrDevice, "slots"]  # >= 0; 0 is off
    stops: Int[HostOrDevice, "slots max_stops"]  # ids that end the sequence, padded with -1, which is no id


class SlotState(NamedTuple):
    """The sequences of all slots. A slot that is not active still holds an old sequence, which is never read."""

    cache: KVCache  # keys and values of the generated tokens; meaningful at indices < generated
    hidden: Float[Array, "slots hidden"]  # at the last token, after the final norm: the next token is drawn from it
    prompt_length: Int[Array, "slots"]  # tokens of the prompt, whose keys and values lie in pages
    generated: Int[Array, "slots"]  # tokens generated so far; less than max_tokens where active
    active: Bool[Array, "slots"]  # whether the sequence goes on
    key_data: UInt32[Array, "slots words"]  # the sample's random key; token t is drawn with fold_in(key, t)
    settings: Settings
    grammar: GrammarState


class Admission(NamedTuple):
    """Samples that `insert` puts into slots. Unused entries have a slot number beyond the slots and are dropped."""

    slot: Int[HostOrDevice, "entries"]  # each at most once
    last_page: Int[HostOrDevice, "entries"]  # the page of the prompt's last token
    prompt_length: Int[HostOrDevice, "entries"]  # in tokens
    digest: UInt32[HostOrDevice, "entries"]  # digest32 of the request id
    sample: Int[HostOrDevice, "entries"]  # index among the request's n samples
    settings: Settings  # per entry
    grammar: GrammarState  # at the start of the text, per entry


def empty_slots(config: DecoderConfig, slots: int, length: int, dtype: DTypeLike) -> SlotState:
    """The state in which no slot is active; `length` is how many tokens a slot can generate."""
    zeros = jnp.zeros(slots, jnp.int32)
    # Each field has its own buffer: the state is donated, and one buffer cannot be donated twice.
    return SlotState(
        cache=init_cache(config, slots, length, dtype),
        hidden=jnp.zeros((slots, config.hidden_size), dtype),
        prompt_length=zeros + 0,
        generated=zeros + 0,
        active=jnp.zeros(slots, bool),
        # Data and not keys: the sharding of a key array is not fixed by out_shardings down to its last axis.
        key_data=jnp.zeros((slots, *jax.random.key_data(jax.random.key(0)).shape), jnp.uint32),
        settings=Settings(
            max_tokens=zeros + 1,
            temperature=jnp.zeros(slots),
            top_p=jnp.ones(slots),
            top_k=zeros + 0,
            stops=jnp.full((slots, MAX_STOPS), -1, jnp.int32),
        ),
        grammar=GrammarState(*(zeros + 0 for _ in GrammarState._fields)),
    )


def insert(state: SlotState, pages: Pages, entering: Admission, seed_key: Key[Array, ""]) -> SlotState:
    """The state with these samples in their slots, active and with nothing generated yet."""
    keys = sample_keys(seed_key, entering.digest, entering.sample)

    def put(old, new):
        return old.at[entering.slot].set(new, mode="drop")

    return SlotState(
        cache=state.cache,
        hidden=put(state.hidden, pages.hidden[entering.last_page]),
        prompt_length=put(state.prompt_length, entering.prompt_length),
        generated=put(state.generated, 0),
        active=put(state.active, True),
        key_data=put(state.key_data, jax.random.key_data(keys)),
        settings=jax.tree.map(put, state.settings, entering.settings),
        grammar=jax.tree.map(put, state.grammar, entering.grammar),
    )


def decode_chunk(
    model: Decoder,
    state: SlotState,
    pages: Pages,
    groups: tuple[SlotGroups, ...],
    tables: GrammarTables | None,
    steps: int,
) -> tuple[SlotState, Int[Array, "rows slots"]]:
    """Generate up to `steps` tokens in every active slot; stops early when none is active.

    Args:
      groups: which pages hold each slot's prompt.
      tables: what the slots' grammars allow; None where no slot has a grammar.

    Returns:
      the new state, and one int32 array [2 * steps + 1, slots] that the host fetches: `steps` rows of ids (-1 where a
      slot generated none), `steps` rows of log-probabilities (the bits of float32), and one row of `active`.
    """
    slots = state.generated.shape[0]

    def unfinished(carry):
        step, state, _, _ = carry
        return (step < steps) & state.active.any()

    def draw(carry):
        step, state, ids, logprobs = carry
        settings, grammar = state.settings, state.grammar
        scores = logits(model, state.hidden)
        allowed = tables and allowed_tokens(tables, grammar, settings.max_tokens - state.generated, scores.shape[1])
        keys = token_keys(jax.random.wrap_key_data(state.key_data), state.generated)
        token, logprob = sample_tokens(scores, keys, settings.temperature, settings.top_p, settings.top_k, allowed)
        ids = ids.at[step].set(jnp.where(state.active, token, -1))
        logprobs = logprobs.at[step].set(logprob)
        generated = state.generated + state.active
        active = state.active & (generated < settings.max_tokens) & (token[:, None] != settings.stops).all(axis=1)
        if tables is not None:
            grammar, complete = advance(tables, grammar, token)
            active &= ~complete
        active &= jnp.isfinite(logprob)  # a slot whose logits are NaN ends; the host sees the reason in the logprob
        # A slot that is not active is computed too, as if nothing were generated: so it adds no blocks to attend to,
        # and what it writes there is never read.
        position = state.prompt_length + jnp.where(active, state.generated, 0)
        hidden, cache = decode_step(model, state.cache, pages, groups, token, state.prompt_length, position)
        state = state._replace(cache=cache, hidden=hidden, generated=generated, active=active, grammar=grammar)
        return step + 1, state, ids, logprobs

    ids = jnp.full((steps, slots), -1, jnp.int32)
    logprobs = jnp.zeros((steps, slots), jnp.float32)
    _, state, ids, logprobs = jax.lax.while_loop(unfinished, draw, (0, state, ids, logprobs))
    bits = jax.lax.bitcast_convert_type(logprobs, jnp.int32)
    return state, jnp.concatenate([ids, bits, state.active[None].astype(jnp.int32)])
