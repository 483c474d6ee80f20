"""Grammars as tables: which tokens may come next, inside the jitted decode loop, with no visit of the host.

A pattern (a regular expression over UTF-8 text) becomes an automaton over bytes (outlines-core), and that one over the
tokens of a tokenizer. Tokens whose columns are equal form a class, so its transitions are [states, classes].
`distance` is the least number of tokens from a state to the end; with it, a token is masked from which what is left of
the budget cannot reach the end any more. So whatever the model prefers, a sample ends complete.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import outlines_core
from jaxtyping import Array, Bool, Int, UInt32

_Given = Any  # a numpy array where the host fills it, a jax array on the device
MAX_SLACK = 7  # how many tokens beyond the shortest way to the end are told apart


@dataclasses.dataclass(frozen=True)
class TokenAutomaton:
    """A pattern over the tokens of one tokenizer. A state number that is no state means that the token is not allowed.

    No accepted text is the beginning of another one, so a sample ends where a state of distance 0 is reached.
    """

    classes: np.ndarray  # [vocab] int32: the class of each token
    following: np.ndarray  # [states, classes] int32: the next state
    distance: np.ndarray  # [states] int32: least tokens to the end
    initial: int


class GrammarTables(NamedTuple):
    """The automata of several patterns, one behind another. State 0 is that of a slot without a grammar."""

    classes: Int[_Given, "grammars vocab"]
    following: Int[_Given, "entries"]  # at offset[state] + class
    offset: Int[_Given, "states"]
    distance: Int[_Given, "states"]
    allowed: Int[
        _Given, "states slacks"
    ]  # a row of bits, for each number of tokens that can be spared (the last: many)
    bits: UInt32[_Given, "rows words"]  # bit i of word w: whether token 32 * w + i is allowed


class Place(NamedTuple):
    """Where each slot is in its grammar."""

    grammar: Int[_Given, "slots"]  # row of `classes`
    state: Int[_Given, "slots"]  # 0 without a grammar
    nearest: Int[_Given, "slots"]  # the least distance that it has reached
    detour: Int[_Given, "slots"]  # tokens since then
    max_detour: Int[_Given, "slots"]


class Grammars:
    """The patterns that an engine has met, for one tokenizer.

    Args:
      tokens: the bytes of every token, by id; an empty one is in no text (special tokens).
    """

    def __init__(self, tokens: Sequence[bytes]):
        self._tokens = list(tokens)
        self._known: dict[str, tuple[int, int, int]] = {}
        self._parts: list[TokenAutomaton] = []
        self._tables: GrammarTables | None = None

    def add(self, pattern: str) -> tuple[int, int, int]:
        """The grammar's number, its first state among all, and the least tokens that a text of it takes.

        Raises:
          ValueError: what is wrong with the pattern.
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
        """All of them, as numpy arrays whose sizes are rounded up, so that few differ; None where there is none."""
        if self._parts and self._tables is None:
            self._tables = _join(self._parts, len(self._tokens))
        return self._tables


def allowed_tokens(
    tables: GrammarTables, place: Place, left: Int[Array, "slots"], vocab: int
) -> Bool[Array, "slots vocab"]:
    """Which tokens may come next where `left` may be drawn, this one included."""
    spare = left - tables.distance[place.state]
    spare = jnp.where(place.detour >= place.max_detour, 0, spare)
    row = tables.allowed[place.state, jnp.clip(spare, 0, MAX_SLACK)]
    bits = tables.bits[row][:, :, None] >> jnp.arange(32, dtype=jnp.uint32)
    return (bits & 1).reshape(len(row), -1)[:, :vocab].astype(bool)


def advance(tables: GrammarTables, place: Place, token: Int[Array, "slots"]) -> tuple[Place, Bool[Array, "slots"]]:
    """The place behind `token`, and whether the text is complete there."""
    state = tables.following[tables.offset[place.state] + tables.classes[place.grammar, token]]
    distance = tables.distance[state]
    nearer = distance < place.nearest
    detour = jnp.where(nearer, 0, place.detour + 1)
    after = Place(place.grammar, state, jnp.minimum(distance, place.nearest), detour, place.max_detour)
    return after, (place.state > 0) & (distance == 0)


@functools.lru_cache(maxsize=256)
def byte_automaton(pattern: str) -> tuple[np.ndarray, int, np.ndarray]:
    """Transitions [states, 256] over bytes (-1: not allowed), the initial state, and which states [states] accept."""
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
    """The automaton of a pattern over tokens.

    Raises:
      ValueError: the pattern cannot be read, accepts a text that begins another accepted text, or no sequence of
        tokens makes a text of it.
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
    # States that no token sequence leads out of are no states: a token that ends in one is not allowed.
    hopeless = np.append(distance > states * 2, True)
    following = np.where(hopeless[following], states, following)
    return TokenAutomaton(classes, np.ascontiguousarray(following), distance, initial)


def _classes(table: np.ndarray, tokens: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The class of every token, and where each class leads [classes, states + 1] from each state.

    Where a text leads from every state at once is a column. Few columns occur, so each is numbered, and where a byte
    leads from a column is computed once.
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
    """The least number of tokens from every state to an accepting one; more than 2 * states where there is no way."""
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
    allowed, entries, first = [np.zeros((1, MAX_SLACK + 1), np.int32)], 1, 1
    for part in parts:
        states, count = part.following.shape
        classes.append(part.classes)
        following.append(np.where(part.following < states, part.following + first, 0).reshape(-1))
        offset.append(entries + count * np.arange(states, dtype=np.int32))
        distance.append(part.distance)
        allowed.append(_allowed_rows(part, words, rows, number))
        entries, first = entries + states * count, first + states
    return GrammarTables(
        _rounded(np.stack(classes)), _rounded(np.concatenate(following)), _rounded(np.concatenate(offset)),
        _rounded(np.concatenate(distance)), _rounded(np.concatenate(allowed)), _rounded(np.stack(rows)),
    )  # fmt: skip


def _allowed_rows(part: TokenAutomaton, words: int, rows: list[np.ndarray], number: dict[bytes, int]) -> np.ndarray:
    """For every state and slack the number of its row of bits, which joins `rows` if it is new."""
    states = len(part.following)
    after = np.append(part.distance, np.iinfo(np.int32).max)[part.following].astype(np.int64)  # [states, classes]
    allowed = np.zeros((states, MAX_SLACK + 1), np.int32)
    of_classes: dict[bytes, int] = {}
    for slack in range(MAX_SLACK + 1):
        most = part.distance[:, None] - 1 + slack
        passing = (after <= most) if slack < MAX_SLACK else (part.following < states)
        for state, some in enumerate(passing):
            key = some.tobytes()
            if key not in of_classes:
                bits = np.zeros(words * 32, np.uint8)
                bits[: len(part.classes)] = some[part.classes]
                row = np.packbits(bits, bitorder="little").view("<u4")
                of_classes[key] = number.setdefault(row.tobytes(), len(rows))
                if of_classes[key] == len(rows):
                    rows.append(row)
            allowed[state, slack] = of_classes[key]
    return allowed


def _rounded(x: np.ndarray) -> np.ndarray:
    """`x` with a first axis of a power of two."""
    size = 1 << (len(x) - 1).bit_length()
    return np.pad(x, [(0, size - len(x)), *[(0, 0)] * (x.ndim - 1)])
