"""Constrained decoding: which tokens a regular expression allows next, as tables that the jitted decode loop reads.

A pattern (a regular expression over UTF-8 text) becomes a finite automaton over bytes (by outlines-core), and this an
automaton over the tokens of a tokenizer (Willard and Louf 2023). Tokens that lead from every state to the same next
state form a class, so the transitions are a table [states, classes]. `distance` is the least number of tokens from a
state to the end of a text. A token is masked if the end could not be reached behind it within the tokens that are left,
so every sample is a complete text of the pattern, whatever the model prefers.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import outlines_core
from jaxtyping import Array, Bool, Int, UInt32

from spare_jax.models.cache import HostOrDevice

MAX_SLACK = 7  # tokens left beyond the least that the end takes; this many or more have one mask


@dataclasses.dataclass(frozen=True)
class TokenAutomaton:
    """A pattern as an automaton over the tokens of one tokenizer.

    The pattern is prefix-free: no text of it is the beginning of another. So a sample ends where it reaches a state of
    distance 0.
    """

    classes: np.ndarray  # [vocab] int32: the class of each token
    following: np.ndarray  # [states, classes] int32: the next state; `states` where the token is not allowed
    distance: np.ndarray  # [states] int32: the least number of tokens to the end
    initial: int


class GrammarTables(NamedTuple):
    """The automata of several patterns in common tables, their states numbered one pattern after another. State 0 is
    that of a slot without a grammar, and allows every token."""

    classes: Int[HostOrDevice, "grammars vocab"]  # the class of each token
    following: Int[HostOrDevice, "entries"]  # the next state, at offset[state] + class
    offset: Int[HostOrDevice, "states"]
    distance: Int[HostOrDevice, "states"]  # least tokens to the end
    mask: Int[HostOrDevice, "states slacks"]  # a row of `bits`, by the slack: tokens left beyond the distance
    bits: UInt32[HostOrDevice, "masks words"]  # bit i of word w: whether token 32 * w + i is allowed


class GrammarState(NamedTuple):
    """The state of each slot's text in its grammar."""

    grammar: Int[HostOrDevice, "slots"]  # the grammar's row of `classes`
    state: Int[HostOrDevice, "slots"]  # 0 without a grammar
    nearest: Int[HostOrDevice, "slots"]  # the least distance to the end that the text has had
    detour: Int[HostOrDevice, "slots"]  # tokens since it had that distance
    max_detour: Int[HostOrDevice, "slots"]  # detours of this length must take a shortest way to the end


class Grammars:
    """The patterns that requests have named so far, compiled for one tokenizer.

    Args:
      tokens: the bytes of every token, by id; empty for a token that stands in no text (special tokens).
    """

    def __init__(self, tokens: Sequence[bytes]):
        self._tokens = list(tokens)
        self._known: dict[str, tuple[int, int, int]] = {}
        self._parts: list[TokenAutomaton] = []
        self._tables: GrammarTables | None = None

    def add(self, pattern: str) -> tuple[int, int, int]:
        """The pattern's grammar number, its initial state in the common tables, and the least number of tokens that a
        text of it takes. A pattern is compiled when it is first added.

        Raises:
          ValueError: the pattern cannot be used (`token_automaton`).
        """
        if pattern not in self._known:
            part = token_automaton(pattern, self._tokens)
            first = 1 + sum(len(other.distance) for other in self._parts)
            self._parts.append(part)
            self._tables = None
            self._known[pattern] = len(self._parts), first + part.initial, int(part.distance[part.initial])
        return self._known[pattern]

    @property
    def tables(self) -> GrammarTables | None:
        """The tables of all patterns, as numpy arrays; None where there is none. Sizes are rounded up to powers of two,
        so that functions that take them are compiled for few shapes."""
        if self._parts and self._tables is None:
            self._tables = _join(self._parts, len(self._tokens))
        return self._tables


def allowed_tokens(
    tables: GrammarTables, current: GrammarState, left: Int[Array, "slots"], vocab: int
) -> Bool[Array, "slots vocab"]:
    """Which tokens may come next in each slot, where `left` more may be generated, the next one included."""
    spare = left - tables.distance[current.state]
    spare = jnp.where(current.detour >= current.max_detour, 0, spare)
    row = tables.mask[current.state, jnp.clip(spare, 0, MAX_SLACK)]
    bits = tables.bits[row][:, :, None] >> jnp.arange(32, dtype=jnp.uint32)
    return (bits & 1).reshape(len(row), -1)[:, :vocab].astype(bool)


def advance(
    tables: GrammarTables, current: GrammarState, token: Int[Array, "slots"]
) -> tuple[GrammarState, Bool[Array, "slots"]]:
    """The state behind each slot's `token`, and whether its text is complete there."""
    state = tables.following[tables.offset[current.state] + tables.classes[current.grammar, token]]
    distance = tables.distance[state]
    nearer = distance < current.nearest
    detour = jnp.where(nearer, 0, current.detour + 1)
    after = GrammarState(current.grammar, state, jnp.minimum(distance, current.nearest), detour, current.max_detour)
    return after, (current.state > 0) & (distance == 0)


@functools.lru_cache(maxsize=256)
def byte_automaton(pattern: str) -> tuple[np.ndarray, int, np.ndarray]:
    """The next state by state and byte [states, 256] (-1: not allowed), the initial state, and whether each state
    [states] ends a text."""
    alphabet = outlines_core.Vocabulary(256, {bytes([byte]): [byte] for byte in range(256)})  # 256: its own end token
    try:
        index = outlines_core.Index(pattern, alphabet)
    except Exception as error:
        raise ValueError(f"the grammar {pattern[:80]!r} is no pattern that can be used: {error}") from None
    transitions, accepting = index.get_transitions(), index.get_final_states()
    numbers: dict[int, int] = {}
    for state in (index.get_initial_state(), *transitions, *accepting):
        numbers.setdefault(state, len(numbers))
    table = np.full((len(numbers), 256), -1, np.int32)
    for state, following in transitions.items():
        for byte, after in following.items():
            if byte < 256:
                table[numbers[state], byte] = numbers[after]
    accepts = np.zeros(len(numbers), bool)
    accepts[[numbers[state] for state in accepting]] = True
    return table, 0, accepts


def token_automaton(pattern: str, tokens: Sequence[bytes]) -> TokenAutomaton:
    """The automaton of a pattern over tokens, given the bytes of each.

    Raises:
      ValueError: the pattern cannot be read, is not prefix-free, or no sequence of tokens makes a text of it.
    """
    table, initial, accepts = byte_automaton(pattern)
    states = len(table)
    if (table[accepts] >= 0).any():
        raise ValueError(
            f"the grammar {pattern[:80]!r} accepts texts that go on as other accepted texts: end it with something "
            "that occurs nowhere else"
        )
    table = np.concatenate([np.where(table < 0, states, table), np.full((1, 256), states)]).astype(np.int32)
    classes, columns = _classes(table, tokens)
    following = columns[:, :states].T
    distance = _distances(following, accepts)
    if distance[initial] > len(following) * 2:
        raise ValueError(f"the grammar {pattern[:80]!r} has no text that this tokenizer's tokens make: change either")
    # From some states no sequence of tokens reaches the end: a token that leads to one is not allowed.
    hopeless = np.append(distance > states * 2, True)
    following = np.where(hopeless[following], states, following)
    return TokenAutomaton(classes, np.ascontiguousarray(following), distance, initial)


def _classes(table: np.ndarray, tokens: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The class of every token, and the state to which a token of each class leads from each state
    [classes, states + 1].

    The states to which a text leads, from every state at once, are a column. Few different columns occur among the
    beginnings of all tokens, so each is numbered, and its column one byte further is computed once.
    """
    states = len(table) - 1
    start, dead = np.arange(states + 1, dtype=np.int32), np.full(states + 1, states, np.int32)
    columns, number = [dead, start], {_digest(dead): 0, _digest(start): 1}
    after: dict[tuple[int, int], int] = {}
    reached = np.zeros(len(tokens), np.int32)
    for i, token in enumerate(tokens):
        at = 1 if token else 0
        for byte in token:
            if (at, byte) not in after:
                column = table[columns[at], byte]
                after[at, byte] = number.setdefault(_digest(column), len(columns))
                if after[at, byte] == len(columns):
                    columns.append(column)
            at = after[at, byte]
        reached[i] = at
    used, classes = np.unique(reached, return_inverse=True)
    return classes.astype(np.int32), np.stack([columns[i] for i in used])


def _digest(column: np.ndarray) -> bytes:
    return hashlib.blake2b(column.tobytes(), digest_size=16).digest()


def _distances(following: np.ndarray, accepts: np.ndarray) -> np.ndarray:
    """The least number of tokens from every state to an accepting one; more than 2 * states where none is reached."""
    states = len(following)
    far = np.int32(4 * states)
    distance = np.where(accepts, 0, far).astype(np.int32)
    while True:
        nearer = np.append(distance, far)[following].min(axis=1) + 1
        nearer = np.minimum(distance, np.minimum(nearer, far))
        if (nearer == distance).all():
            return distance
        distance = nearer


def _join(parts: Sequence[TokenAutomaton], vocab: int) -> GrammarTables:
    words = -(-vocab // 32)
    everything = np.full(words, np.iinfo(np.uint32).max, np.uint32)
    rows, number = [everything], {everything.tobytes(): 0}
    classes, following = [np.zeros(vocab, np.int32)], [np.zeros(1, np.int32)]
    offset, distance = [np.zeros(1, np.int32)], [np.zeros(1, np.int32)]
    mask, entries, first = [np.zeros((1, MAX_SLACK + 1), np.int32)], 1, 1
    for part in parts:
        states, count = part.following.shape
        classes.append(part.classes)
        following.append(np.where(part.following < states, part.following + first, 0).reshape(-1))
        offset.append(entries + count * np.arange(states, dtype=np.int32))
        distance.append(part.distance)
        mask.append(_mask_rows(part, words, rows, number))
        entries, first = entries + states * count, first + states
    return GrammarTables(
        _rounded(np.stack(classes)), _rounded(np.concatenate(following)), _rounded(np.concatenate(offset)),
        _rounded(np.concatenate(distance)), _rounded(np.concatenate(mask)), _rounded(np.stack(rows)),
    )  # fmt: skip


def _mask_rows(part: TokenAutomaton, words: int, rows: list[np.ndarray], number: dict[bytes, int]) -> np.ndarray:
    """The row of bits, by state and slack [states, slacks]. Rows that are new are appended to `rows`; `number` has the
    row of each content."""
    states = len(part.following)
    after = np.append(part.distance, np.iinfo(np.int32).max)[part.following].astype(np.int64)  # [states, classes]
    mask = np.zeros((states, MAX_SLACK + 1), np.int32)
    known: dict[bytes, int] = {}  # the row of each set of classes
    for slack in range(MAX_SLACK + 1):
        most = part.distance[:, None] - 1 + slack
        passing = (after <= most) if slack < MAX_SLACK else (part.following < states)
        for state, allowed in enumerate(passing):
            key = allowed.tobytes()
            if key not in known:
                bits = np.zeros(words * 32, np.uint8)
                bits[: len(part.classes)] = allowed[part.classes]
                row = np.packbits(bits, bitorder="little").view("<u4")
                known[key] = number.setdefault(row.tobytes(), len(rows))
                if known[key] == len(rows):
                    rows.append(row)
            mask[state, slack] = known[key]
    return mask


def _rounded(x: np.ndarray) -> np.ndarray:
    """`x` with its first axis padded to a power of two."""
    size = 1 << (len(x) - 1).bit_length()
    return np.pad(x, [(0, size - len(x)), *[(0, 0)] * (x.ndim - 1)])
