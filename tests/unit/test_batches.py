import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spare_jax.training import batches
from spare_jax.training.batches import Example, Pair


@st.composite
def tagged_examples(draw):
    """Texts whose tag tokens are numbered, with a label that is a function of the number."""
    examples, number = [], 1000
    for length in draw(st.lists(st.integers(1, 40), min_size=1, max_size=12)):
        ids = draw(st.lists(st.integers(1, 99), min_size=length, max_size=length))
        tags = sorted(draw(st.sets(st.integers(0, length - 1), max_size=6)))
        for tag in tags:
            ids[tag] = number
            number += 1
        labels = [None if ids[tag] % 5 == 0 else _label(ids[tag]) for tag in tags]
        mask = draw(st.lists(st.booleans(), min_size=length, max_size=length))
        examples.append(Example(ids, mask, tags, labels))
    return examples


def _label(number):
    return float(np.float32(number % 7 / 7))


def _known(example, row_length):
    kept = [(t, y) for t, y in zip(example.tags, example.labels, strict=True) if t < row_length and y is not None]
    return [(example.ids[t], y) for t, y in kept]


def _targets(example, row_length):
    return [(example.ids[t - 1], example.ids[t]) for t in range(1, min(len(example.ids), row_length))
            if example.token_weights[t]]  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(tagged_examples(), st.integers(8, 48))
def test_every_tag_keeps_its_own_label_and_all_that_is_dropped_is_counted(examples, row_length):
    packed = batches.pack(examples, row_length)
    arrays, counts = packed.arrays, packed.counts
    rows, slots = np.nonzero(arrays["tag_weights"])
    numbers = arrays["ids"][rows, arrays["tags"][rows, slots]]
    assert [_label(n) for n in numbers] == arrays["labels"][rows, slots].tolist()
    expected = [pair for example in examples for pair in _known(example, row_length)]
    assert sorted(numbers) == sorted(number for number, _ in expected)
    assert counts.tags == len(expected) == (arrays["tag_weights"] > 0).sum()
    given_labels = sum(label is not None for example in examples for label in example.labels)
    assert counts.tags + counts.dropped_tags == given_labels
    assert set(arrays["tag_weights"][rows, slots].tolist()) <= {1.0}
    in_fullest = max(sum(arrays["tags"][row] > 0) for row in range(packed.rows)) if packed.rows else 0
    assert (
        arrays["tags"].shape[1] % 8 == 0 and arrays["tags"].shape[1] - 8 <= in_fullest
    )  # a tag at position 0 is not counted


@settings(deadline=None, max_examples=150)
@given(tagged_examples(), st.integers(8, 48))
def test_packing_loses_nothing_that_fits_and_predicts_only_within_an_example(examples, row_length):
    packed = batches.pack(examples, row_length)
    arrays, counts = packed.arrays, packed.counts
    found = []
    for row in range(packed.rows):
        segments = arrays["segments"][row]
        assert arrays["ids"][row][segments == 0].tolist() == [0] * int((segments == 0).sum())
        for segment in range(1, segments.max() + 1):
            (places,) = np.nonzero(segments == segment)
            assert np.array_equal(np.diff(places), np.ones(len(places) - 1))
            assert arrays["positions"][row, places].tolist() == list(range(len(places)))
            found.append(arrays["ids"][row, places].tolist())
    supervised = [e for e in examples if _known(e, row_length) or _targets(e, row_length)]
    assert sorted(found) == sorted(list(e.ids[:row_length]) for e in supervised)
    assert counts.examples == len(examples) and counts.unsupervised == len(examples) - len(supervised)
    assert counts.truncated == sum(len(e.ids) > row_length for e in examples)

    rows, places = np.nonzero(arrays["loss_weights"])
    assert (arrays["segments"][rows, places] == arrays["segments"][rows, places + 1]).all()
    pairs = zip(arrays["ids"][rows, places], arrays["ids"][rows, places + 1], strict=True)
    assert sorted(pairs) == sorted(pair for e in examples for pair in _targets(e, row_length))
    assert counts.targets == len(rows)
    assert counts.targets + counts.dropped_targets == sum(sum(map(bool, e.token_weights[1:])) for e in examples)


texts = st.lists(st.integers(1, 99), min_size=1, max_size=12)
some_pairs = st.lists(st.builds(Pair, texts, texts, texts), max_size=12)


@settings(deadline=None, max_examples=150)
@given(some_pairs, st.integers(8, 48))
def test_pairs_are_packed_whole_side_by_side_or_left_out_and_counted(pairs, row_length):
    packed = batches.pack_pairs(pairs, row_length)
    arrays, counts, found = packed.arrays, packed.counts, []
    for row in range(packed.rows):
        segments = arrays["segments"][row]
        weights = arrays["pair_weights"][row].tolist()
        assert segments.max() == 2 * sum(weights) and set(weights) <= {0.0, 1.0}
        sides = []
        for segment in range(1, segments.max() + 1):
            (places,) = np.nonzero(segments == segment)
            assert (
                arrays["positions"][row, places].tolist() == list(range(len(places))) == (places - places[0]).tolist()
            )
            ids, learnt = arrays["ids"][row, places], arrays["loss_weights"][row, places]
            assert set(learnt.tolist()) <= {0.0, 1.0} and learnt[-1] == 0
            start = len(ids) - int(learnt.sum())
            assert learnt.tolist() == [0.0] * (start - 1) + [1.0] * (len(ids) - start) + [0.0]
            sides.append((ids[:start].tolist(), ids[start:].tolist()))
        for (prompt, chosen), (same, rejected) in zip(sides[::2], sides[1::2], strict=True):
            assert prompt == same
            found.append(Pair(prompt, chosen, rejected))
    fits = [p for p in pairs if 2 * len(p.prompt) + len(p.chosen) + len(p.rejected) <= row_length]
    assert sorted(map(str, found)) == sorted(map(str, fits))
    assert (counts.examples, counts.too_long, counts.rows) == (len(pairs), len(pairs) - len(fits), packed.rows)
    assert counts.tokens == (arrays["segments"] > 0).sum() and counts.targets == arrays["loss_weights"].sum()


@pytest.mark.parametrize(
    "pair, message",
    [
        (Pair([1], [], [2]), "chosen is empty"),
        (Pair([], [1], [2]), "prompt is empty"),
    ],
)
def test_a_malformed_pair_is_named(pair, message):
    with pytest.raises(ValueError, match=f"pair 1: {message}"):
        batches.pack_pairs([Pair([1], [2], [3]), pair], 8)


def test_first_fit_fills_the_first_row_with_room():
    examples = [Example([1] * n, tags=[0], labels=[1.0]) for n in (6, 7, 4, 3, 8)]
    assert batches.pack(examples, 10).arrays["segments"].max(axis=1).tolist() == [2, 2, 1]


def test_truncation_drops_labels_together_with_their_tags():
    counts = batches.pack([Example(list(range(20)), tags=[3, 9, 15, 19], labels=[1, 0, 1, 0])], 10).counts
    assert (counts.tags, counts.dropped_tags, counts.truncated, counts.dropped_tokens) == (2, 2, 1, 10)


@pytest.mark.parametrize(
    "example, message",
    [
        (Example([1, 2, 3], tags=[1], labels=[1, 0]), "2 labels for 1 step tags"),
        (Example([1, 2, 3], tags=[3], labels=[1]), "must rise within"),
        (Example([1, 2, 3], tags=[1, 1], labels=[1, 0]), "must rise within"),
        (Example([1, 2, 3], tags=[1], labels=[-100]), "label -100 is no probability"),
        (Example([1, 2, 3], token_weights=[1.0]), "1 token weights for 3 tokens"),
    ],
)
def test_a_malformed_example_is_named(example, message):
    with pytest.raises(ValueError, match=f"example 1: .*{message}"):
        batches.pack([Example([1, 2], tags=[0], labels=[1]), example], 10)


def test_completion_example_supervises_the_completion_alone():
    arrays = batches.pack([batches.completion_example([5, 6, 7, 8, 9], prompt_length=3)], 8).arrays
    assert arrays["loss_weights"].tolist() == [[0, 0, 1, 1, 0, 0, 0, 0]]


def test_each_epoch_takes_every_row_once_in_its_own_order():
    steps = [batches.rows_of_step(10, 4, seed=3, step=s) for s in range(5)]
    line = np.concatenate(steps)
    assert sorted(line[:10]) == sorted(line[10:]) == list(range(10))
    assert line[:10].tolist() != line[10:].tolist()
    assert line.tolist() != np.concatenate([batches.rows_of_step(10, 4, seed=4, step=s) for s in range(5)]).tolist()
    assert batches.rows_of_step(10, 4, seed=3, step=2).tolist() == steps[2].tolist()


def test_a_batch_may_be_larger_than_the_data():
    assert np.bincount(batches.rows_of_step(3, 9, seed=0, step=0)).tolist() == [3, 3, 3]


def test_no_rows_is_an_error():
    with pytest.raises(ValueError, match="no training rows"):
        batches.rows_of_step(0, 4, seed=0, step=0)


def test_evaluation_batches_hold_every_row_once_and_fill_up_with_weight_0():
    packed = batches.pack([Example([i] * 10, tags=[9], labels=[1]) for i in range(1, 8)], 10)
    found = list(batches.batches_in_order(packed, 4))
    assert [len(b["ids"]) for b in found] == [4, 4]
    assert np.concatenate([b["ids"][:, 0] for b in found]).tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
    assert sum(b["tag_weights"].sum() for b in found) == 7
    assert packed.arrays["ids"][-1, 0] == 7, "filling up wrote into the packed rows"


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 5), st.sampled_from([None, 3]))
def test_outcome_balanced_draws_as_many_right_as_wrong(outcomes, seed, limit):
    items = list(enumerate(outcomes))
    chosen, warning = batches.outcome_balanced(items, outcomes, seed, limit)
    right, wrong = sum(outcomes), len(outcomes) - sum(outcomes)
    assert chosen == sorted(set(chosen)) and set(chosen) <= set(items)
    if right and wrong:
        size = min(right, wrong, limit or 99)
        assert (sum(o for _, o in chosen), len(chosen)) == (size, 2 * size) and warning is None
    else:
        assert len(chosen) == min(len(items), limit or 99)
        assert warning is not None and ("no right" if not right else "no wrong") in warning


def test_outcome_balanced_depends_on_the_seed():
    outcomes = [True] * 50 + [False] * 5
    draws = [batches.outcome_balanced(range(55), outcomes, seed)[0] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
