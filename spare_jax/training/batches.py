"""Examples packed into rows of fixed shape, and which rows each step trains on. Numpy only.

A row holds several texts one after another: `segments` numbers them from 1 (0 is padding) and `positions` starts
again at 0 in each. The two texts of a pair are neighbours in one row. `PackCounts` counts all that did not fit.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

# First fit looks for room in this many of the newest rows, which keeps it linear in the number of examples.
_OPEN_ROWS = 1024


@dataclasses.dataclass(frozen=True)
class Example:
    """One text to learn from: tokens to predict, or step tags with labels, or both.

    `token_weights[t]` is the weight of predicting token t from those before it; token 0 is never predicted. `labels[i]`
    belongs to the tag at `tags[i]` (an index into `ids`): the probability in [0, 1] that the step is right, None or NaN
    where it is unknown.
    """

    ids: Sequence[int] | np.ndarray
    token_weights: Sequence[float] | np.ndarray | None = None
    tags: Sequence[int] | np.ndarray = ()
    labels: Sequence[float | None] | np.ndarray = ()


@dataclasses.dataclass(frozen=True)
class Pair:
    """A prompt, a better completion of it and a worse one, as token ids.

    Each of the three has a token or more; a completion has its end-of-text token if that is to be learnt.
    """

    prompt: Sequence[int] | np.ndarray
    chosen: Sequence[int] | np.ndarray
    rejected: Sequence[int] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Sampled:
    """A prompt and a completion that a policy sampled, as token ids, each of one token or more.

    For each token of the completion `logprobs` has the log-probability in nats with which it was sampled, `advantages`
    its advantage in GRPO.
    """

    prompt: Sequence[int] | np.ndarray
    completion: Sequence[int] | np.ndarray
    logprobs: Sequence[float] | np.ndarray
    advantages: Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class PackCounts:
    """What became of the examples, pairs or samples.

    `rows` hold `tokens`, of which `targets` are predicted, `tags` with a known label, and tags with `unknown_labels`,
    which nothing is learnt from. `truncated` examples were
    longer than a row and lost their end: `dropped_tokens`, and among these `dropped_tags` (with a known label) and
    `dropped_targets` (to predict). `unsupervised` examples were left out, since nothing in them, or in what a row keeps
    of them, is to be learnt. Pairs are never cut: those `too_long` for a row were left out.
    """

    examples: int = 0
    rows: int = 0
    tokens: int = 0
    tags: int = 0
    targets: int = 0
    unknown_labels: int = 0
    truncated: int = 0
    dropped_tokens: int = 0
    dropped_tags: int = 0
    dropped_targets: int = 0
    unsupervised: int = 0
    too_long: int = 0


@dataclasses.dataclass(frozen=True)
class Packed:
    """Rows ready for batching.

    `arrays` always has ids, positions and segments, int32 [rows, row_length], and loss_weights, float32 [rows,
    row_length], whose place t holds the weight of predicting token t + 1. Further arrays of

    - examples: tags int32, labels and tag_weights float32 [rows, max_tags]; a tag_weight is 1 for a tag with a known
      label, else 0;
    - pairs: pair_weights float32 [rows, max_pairs], 1 for a pair, else 0; pair p of a row is its segments 2p + 1
      (chosen) and 2p + 2 (rejected);
    - samples: sampled_logps, advantages and sequence_weights (1 over the completion's number of tokens), float32
      [rows, row_length], at the same places as loss_weights.
    """

    arrays: dict[str, np.ndarray]
    counts: PackCounts

    @property
    def rows(self) -> int:
        return len(self.arrays["ids"])

    @property
    def digest(self) -> str:
        """A digest of all arrays but the reference's log-probabilities, which a model made of the others."""
        state = hashlib.blake2b(digest_size=16)
        for name in sorted(self.arrays.keys() - {"reference_logps"}):
            array = self.arrays[name]
            state.update(f"{name} {array.shape} {array.dtype}\n".encode())
            state.update(np.ascontiguousarray(array).data)
        return state.hexdigest()


def completion_example(ids: Sequence[int] | np.ndarray, prompt_length: int) -> Example:
    """A language-model example of which all but the first `prompt_length` tokens are to be predicted."""
    return Example(ids=ids, token_weights=1.0 * (np.arange(len(ids)) >= prompt_length))


def pack(examples: Sequence[Example], row_length: int) -> Packed:
    """Pack examples into rows by first fit, in their order; an example is never split over rows.

    Args:
      examples: one longer than `row_length` loses its end; what is dropped is counted.
      row_length: tokens in a row. There is room for as many tags as the fullest row has, in multiples of 8.

    Raises:
      ValueError: labels and tags differ in number, a tag lies outside its text or out of order, a label is no
        probability, or token weights are below 0 or not one per token.
    """
    counts = dict.fromkeys((field.name for field in dataclasses.fields(PackCounts)), 0)
    counts["examples"] = len(examples)
    pieces = []
    for index, example in enumerate(examples):
        piece = _cut(index, example, row_length, counts)
        if piece is None:
            counts["unsupervised"] += 1
        else:
            pieces.append(piece)
    placed, rows = _first_fit([len(piece.ids) for piece in pieces], row_length)
    tags_in_row = np.zeros(max(rows, 1), np.int64)
    for piece, (row, _, _) in zip(pieces, placed, strict=True):
        tags_in_row[row] += len(piece.tags)
    width = max(8, 8 * math.ceil(tags_in_row.max() / 8))
    arrays = _empty_rows(rows, row_length) | {
        "tags": np.zeros((rows, width), np.int32),
        "labels": np.zeros((rows, width), np.float32),
        "tag_weights": np.zeros((rows, width), np.float32),
    }
    used = np.zeros(max(rows, 1), np.int64)
    for piece, (row, start, segment) in zip(pieces, placed, strict=True):
        _write(arrays, row, start, segment, piece.ids, piece.token_weights)
        slots = slice(used[row], used[row] + len(piece.tags))
        arrays["tags"][row, slots] = start + piece.tags
        arrays["labels"][row, slots] = np.nan_to_num(piece.labels)
        arrays["tag_weights"][row, slots] = np.isfinite(piece.labels)
        used[row] += len(piece.tags)
    counts["rows"] = rows
    counts["tokens"] = sum(len(piece.ids) for piece in pieces)
    return Packed(arrays, PackCounts(**counts))


def pack_pairs(pairs: Sequence[Pair], row_length: int) -> Packed:
    """Pack pairs into rows by first fit, in their order. Both texts of a pair, each with the prompt in front, lie in
    one row, the chosen one first; their completions are what is supervised.

    Args:
      pairs: those whose two texts together are longer than `row_length` are left out and counted.
      row_length: tokens in a row.

    Raises:
      ValueError: a prompt or a completion is empty.
    """
    kept, lengths = [], []
    for index, pair in enumerate(pairs):
        sizes = {name: len(getattr(pair, name)) for name in ("prompt", "chosen", "rejected")}
        if empty := [name for name, size in sizes.items() if not size]:
            raise ValueError(f"pair {index}: {empty[0]} is empty; give a token or more, or leave the pair out")
        length = 2 * sizes["prompt"] + sizes["chosen"] + sizes["rejected"]
        if length <= row_length:
            kept.append(pair)
            lengths.append(length)
    placed, rows = _first_fit(lengths, row_length)
    width = max((number for _, _, number in placed), default=1)
    arrays = _empty_rows(rows, row_length) | {"pair_weights": np.zeros((rows, width), np.float32)}
    for pair, (row, start, number) in zip(kept, placed, strict=True):
        for segment, completion in ((2 * number - 1, pair.chosen), (2 * number, pair.rejected)):
            ids = np.concatenate([pair.prompt, completion])
            _write(arrays, row, start, segment, ids, np.arange(len(ids)) >= len(pair.prompt))
            start += len(ids)
        arrays["pair_weights"][row, number - 1] = 1
    counts = PackCounts(
        examples=len(pairs),
        rows=rows,
        tokens=sum(lengths),
        targets=sum(len(pair.chosen) + len(pair.rejected) for pair in kept),
        too_long=len(pairs) - len(kept),
    )
    return Packed(arrays, counts)


def pack_samples(samples: Sequence[Sampled], row_length: int, row_counts: Sequence[int]) -> Packed:
    """Pack samples into rows by first fit, in their order. The number of rows is the least of `row_counts` that
    suffices, so that batches have few shapes.

    Raises:
      ValueError: they do not fit, a text is empty, or log-probabilities or advantages are not one per token.
    """
    for index, sample in enumerate(samples):
        sizes = len(sample.completion), len(sample.logprobs), len(sample.advantages)
        if not len(sample.prompt) or not sizes[0] or len(set(sizes)) > 1:
            raise ValueError(
                f"sample {index}: {len(sample.prompt)} prompt and {sizes[0]} completion tokens, {sizes[1]} "
                f"log-probabilities and {sizes[2]} advantages: give a token or more, and one of each per token"
            )
    lengths = [len(sample.prompt) + len(sample.completion) for sample in samples]
    placed, wanted = _first_fit(lengths, row_length)
    if wanted > max(row_counts) or max(lengths, default=0) > row_length:
        raise ValueError(
            f"{len(samples)} samples of up to {max(lengths)} tokens do not fit into {max(row_counts)} rows of "
            f"{row_length}: give longer rows, or more of them"
        )
    rows = min(count for count in row_counts if count >= wanted)
    arrays = _empty_rows(rows, row_length)
    names = ("sampled_logps", "advantages", "sequence_weights")
    extra = {name: np.zeros((rows, row_length), np.float32) for name in names}
    for sample, length, (row, start, segment) in zip(samples, lengths, placed, strict=True):
        given, written = len(sample.prompt), len(sample.completion)
        ids = np.concatenate([sample.prompt, sample.completion])
        _write(arrays, row, start, segment, ids, np.arange(length) >= given)
        predictions = slice(start + given - 1, start + length - 1)
        extra["sampled_logps"][row, predictions] = sample.logprobs
        extra["advantages"][row, predictions] = sample.advantages
        extra["sequence_weights"][row, predictions] = 1 / written
    targets = sum(len(sample.completion) for sample in samples)
    return Packed(arrays | extra, PackCounts(len(samples), rows, tokens=sum(lengths), targets=targets))


def rows_for(samples: int, length: int, row_length: int) -> int:
    """A number of rows that suffices for so many samples of at most `length` tokens, wherever first fit places them:
    each row but the last takes row_length // length of them or more.

    Raises:
      ValueError: one of them could be longer than a row.
    """
    if length > row_length:
        raise ValueError(f"a sample may have {length} tokens and a row has {row_length}: raise row_length to {length}")
    return math.ceil(samples / (row_length // length))


def take(packed: Packed, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The batch of the rows with these numbers; -1 stands for an empty row (padding throughout, weight 0)."""
    batch = {}
    for name, array in packed.arrays.items():
        batch[name] = array[rows]
        batch[name][rows < 0] = 0
    return batch


def rows_of_step(num_rows: int, batch_rows: int, seed: int, step: int) -> np.ndarray:
    """The numbers int64 [batch_rows] of the rows that step `step` (from 0) trains on, a pure function of the arguments.

    Every epoch is shuffled anew; the epochs follow one another and are cut into batches. So every row is in every epoch
    once, a batch may reach into the next epoch, and a resumed run needs the number of its step alone.

    Raises:
      ValueError: there are no rows.
    """
    if num_rows == 0:
        raise ValueError("no training rows: every example was empty, held nothing to learn, or was too long a pair")
    epochs, places = np.divmod(np.arange(step * batch_rows, (step + 1) * batch_rows), num_rows)
    return np.array([_epoch_order(num_rows, seed, int(e))[p] for e, p in zip(epochs, places, strict=True)], np.int64)


def batches_in_order(packed: Packed, batch_rows: int) -> Iterator[dict[str, np.ndarray]]:
    """All rows once, in order, in batches for evaluation; the last is filled up with empty rows."""
    for start in range(0, packed.rows, batch_rows):
        rows = np.arange(start, start + batch_rows)
        yield take(packed, np.where(rows < packed.rows, rows, -1))


def outcome_balanced(
    items: Sequence[Item], outcomes: Sequence[bool], seed: int, limit: int | None = None
) -> tuple[list[Item], str | None]:
    """As many items with a right outcome as with a wrong one, drawn at random and kept in order (arXiv 2506.15498).

    Args:
      limit: at most this many of each class (SPARE: 20,000 for training, 500 for dev).

    Returns:
      The items, and a warning where a class is empty (the other class is then kept whole, up to `limit`).

    Raises:
      ValueError: there is not one outcome per item.
    """
    right = [i for i, outcome in enumerate(outcomes) if outcome]
    wrong = [i for i, outcome in enumerate(outcomes) if not outcome]
    if len(items) != len(right) + len(wrong):
        raise ValueError(f"{len(items)} items but {len(right) + len(wrong)} outcomes: give one outcome per item")
    warning = None
    size = min(len(right), len(wrong))
    if not size:
        size = max(len(right), len(wrong))
        missing, kept = ("right", "wrong") if not right else ("wrong", "right")
        warning = f"no {missing} solution among {len(items)}: training on {kept} ones alone, balanced with nothing"
    if limit is not None:
        size = min(size, limit)
    rng = np.random.default_rng(seed)
    chosen = []
    for group in (right, wrong):
        chosen += [group[i] for i in rng.permutation(len(group))[:size]]
    return [items[i] for i in sorted(chosen)], warning


@dataclasses.dataclass(frozen=True)
class _Piece:
    """An example that is cut to the length of a row, with arrays in place of sequences."""

    ids: np.ndarray
    token_weights: np.ndarray
    tags: np.ndarray
    labels: np.ndarray


def _cut(index: int, example: Example, row_length: int, counts: dict[str, int]) -> _Piece | None:
    """Check the example and cut it to a row; None where nothing of it is supervised. Adds to `counts`."""
    ids = np.asarray(example.ids, np.int32)
    weights = np.zeros(len(ids)) if example.token_weights is None else example.token_weights
    weights = np.array(weights, np.float32)
    tags = np.asarray(example.tags, np.int32).reshape(-1)
    labels = np.array([np.nan if label is None else float(label) for label in example.labels], np.float32)
    if len(weights) != len(ids) or (weights < 0).any():
        raise ValueError(
            f"example {index}: {len(weights)} token weights for {len(ids)} tokens; give one per token, none below 0"
        )
    if len(labels) != len(tags):
        raise ValueError(f"example {index}: {len(labels)} labels for {len(tags)} step tags; give one label per tag")
    if len(tags) and (tags[0] < 0 or tags[-1] >= len(ids) or np.any(np.diff(tags) <= 0)):
        raise ValueError(f"example {index}: step tags {tags.tolist()} must rise within the text's {len(ids)} tokens")
    if np.any((labels < 0) | (labels > 1)):
        bad = labels[(labels < 0) | (labels > 1)][0]
        raise ValueError(f"example {index}: label {bad:g} is no probability; use 0..1, or None for an unknown label")
    weights[:1] = 0
    mask = weights > 0
    known = np.isfinite(labels)
    kept = tags < row_length
    counts["truncated"] += len(ids) > row_length
    counts["dropped_tokens"] += max(0, len(ids) - row_length)
    counts["dropped_tags"] += int((known & ~kept).sum())
    counts["dropped_targets"] += int(mask[row_length:].sum())
    counts["tags"] += int((known & kept).sum())
    counts["targets"] += int(mask[:row_length].sum())
    counts["unknown_labels"] += int((~known & kept).sum())
    if not (mask[:row_length].any() or (known & kept).any()):
        return None
    return _Piece(ids[:row_length], weights[:row_length], tags[kept], labels[kept])


def _empty_rows(rows: int, row_length: int) -> dict[str, np.ndarray]:
    kinds = {"ids": np.int32, "positions": np.int32, "segments": np.int32, "loss_weights": np.float32}
    return {name: np.zeros((rows, row_length), kind) for name, kind in kinds.items()}


def _write(
    arrays: dict[str, np.ndarray], row: int, start: int, segment: int, ids: np.ndarray, token_weights: np.ndarray
) -> None:
    """Write a text into a row. The weight of predicting a token is written at the token before, from which it is
    predicted, so that no loss has to shift weights."""
    end = start + len(ids)
    arrays["ids"][row, start:end] = ids
    arrays["positions"][row, start:end] = np.arange(len(ids))
    arrays["segments"][row, start:end] = segment
    arrays["loss_weights"][row, start : end - 1] = token_weights[1:]


def _first_fit(lengths: Sequence[int], row_length: int) -> tuple[list[tuple[int, int, int]], int]:
    """(row, start, number in its row from 1) of each piece of so many tokens, and how many rows there are."""
    free, numbers = np.zeros((2, len(lengths)), np.int64)
    rows, placed = 0, []
    for length in lengths:
        first = max(0, rows - _OPEN_ROWS)
        fits = free[first:rows] >= length
        row = first + int(fits.argmax()) if fits.any() else rows
        if row == rows:
            free[row], rows = row_length, rows + 1
        numbers[row] += 1
        placed.append((row, row_length - int(free[row]), int(numbers[row])))
        free[row] -= length
    return placed, rows


@functools.lru_cache(maxsize=4)
def _epoch_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_rows)
