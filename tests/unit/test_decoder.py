"""Properties of the decoder that hold without a reference: packing, caching, independence of rows, tree structure."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from spare_jax.models import cache as caches
from spare_jax.models import decoder
from spare_jax.models.cache import KEY_BLOCK, blocks_of
from spare_jax.models.config import DecoderConfig

CONFIG = DecoderConfig(
    vocab_size=61, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8
)
LENGTH = 300  # more than one query block and more than two key blocks

init = jax.jit(decoder.init_decoder, static_argnums=0)
forward = jax.jit(decoder.hidden_states, static_argnames=("remat", "dtype"))
prefill = jax.jit(decoder.prefill)
decode_step = jax.jit(decoder.decode_step)
BLOCKS = -(-LENGTH // KEY_BLOCK)


@pytest.fixture(scope="module")
def model():
    return init(CONFIG, jax.random.key(0))


@pytest.fixture(scope="module")
def ids():
    return jax.random.randint(jax.random.key(1), (3, LENGTH), 0, CONFIG.vocab_size)


def one_segment(ids):
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    return ids, positions, jnp.ones_like(ids)


def full_forward(model, ids):
    return forward(model, *one_segment(ids))


def read(model, ids):
    """Hidden states, keys and values of prompts that start at position 0."""
    rows = ids.shape[0]
    no_pages = caches.init_pages(model.config, 1)
    return prefill(model, no_pages, ids, jnp.zeros((rows, BLOCKS), int), jnp.zeros(rows, int))


def prompts(model, ids, lengths, order=None):
    """The first `lengths` tokens of the rows in pages, row r in the pages 3 * order[r] and behind it; and who reads
    them: slot r the prompt of row r, alone."""
    rows = ids.shape[0]
    order = np.arange(rows) if order is None else np.array(order)
    table = order[:, None] * BLOCKS + np.arange(BLOCKS)
    hidden, k, v = read(model, ids)
    count = -(-np.array(lengths) // KEY_BLOCK)
    pages = np.where(np.arange(BLOCKS) < count[:, None], table, 1000)
    nothing = np.zeros(rows, np.int32)
    to = caches.PageWrites(
        nothing, nothing, np.array(lengths), np.pad(pages, ((0, 0), (0, 1)), constant_values=1000), nothing
    )
    stored = caches.write_pages(caches.init_pages(model.config, rows * BLOCKS), hidden, k, v, to)
    groups = caches.SlotGroups(
        np.arange(rows)[None, :, None], table[None], nothing[None], count[None], np.array(lengths)[None], np.int32(1)
    )
    return stored, (groups,)


def by_position(cache):
    """Keys and values as [layers, slots, index, kv_heads, head_dim]."""
    layers, blocks, slots, heads, size, block = cache.k.shape
    k, v = cache.k.transpose(0, 2, 1, 5, 3, 4), cache.v.transpose(0, 2, 1, 4, 3, 5)
    return (x.reshape(layers, slots, blocks * block, heads, size) for x in (k, v))


def test_packed_segments_equal_separate_rows(model, ids):
    lengths = (70, 50, 20)  # the first query block ends inside the third segment
    packed = jnp.concatenate([row[:n] for row, n in zip(ids, lengths, strict=True)] + [jnp.zeros(10, int)])[None]
    positions = jnp.concatenate([jnp.arange(n) for n in (*lengths, 10)])[None]
    segments = jnp.repeat(jnp.array([1, 2, 3, 0]), jnp.array([*lengths, 10]), total_repeat_length=LENGTH)[None]
    together = forward(model, packed, positions, segments)[0]
    separate = full_forward(model, ids)
    expected = jnp.concatenate([row[:n] for row, n in zip(separate, lengths, strict=True)])
    np.testing.assert_allclose(together[: sum(lengths)], expected, atol=1e-5)
    assert np.isfinite(together).all()


def test_causal(model, ids):
    changed = ids.at[:, 100:].set((ids[:, 100:] + 1) % CONFIG.vocab_size)
    before, after = full_forward(model, ids), full_forward(model, changed)
    np.testing.assert_array_equal(before[:, :100], after[:, :100])
    assert (jnp.abs(before - after)[:, 100:].max(axis=-1) > 0).all()


def test_positions_are_relative(model, ids):
    ids, positions, segments = one_segment(ids)
    shifted = forward(model, ids, positions + 37, segments)
    np.testing.assert_allclose(shifted, full_forward(model, ids), atol=1e-4)
    stretched = forward(model, ids, positions * 2, segments)
    assert jnp.abs(stretched - full_forward(model, ids)).max() > 1e-2


@pytest.mark.parametrize("start", [1, 128, 255, 280])
def test_decoding_from_any_position_equals_the_full_forward(model, ids, start):
    expected = full_forward(model, ids)
    np.testing.assert_allclose(read(model, ids[:, :start])[0], expected[:, :start], atol=1e-5)
    pages, groups = prompts(model, ids, [start] * 3)
    cache = caches.init_cache(CONFIG, 3, 20)
    for position in range(start, start + 5):
        hidden, cache = decode_step(
            model, cache, pages, groups, ids[:, position], jnp.full(3, start), jnp.full(3, position)
        )
        np.testing.assert_allclose(hidden, expected[:, position], atol=1e-5)


def test_slots_at_different_positions(model, ids):
    expected = full_forward(model, ids)
    lengths = jnp.array([3, 128, 150])
    pages, groups = prompts(model, ids, [3, 128, 150])
    cache = caches.init_cache(CONFIG, 3, 200)
    for step in range(140):  # into the second block of what the slots hold
        at = lengths + step
        hidden, cache = decode_step(model, cache, pages, groups, ids[jnp.arange(3), at], lengths, at)
        np.testing.assert_allclose(hidden, expected[jnp.arange(3), at], atol=1e-5)


@pytest.mark.parametrize("cut", [1, 127, 128, 129, 200])
def test_a_prompt_in_two_pieces_equals_the_full_forward(model, ids, cut):
    """The second writes begins with a copy of the first one's last page, if that is not full."""
    expected = full_forward(model, ids)
    pages, _ = prompts(model, ids, [cut] * 3, [2, 0, 1])
    table = np.array([2, 0, 1])[:, None] * BLOCKS + np.arange(BLOCKS)
    hidden, k, v = prefill(model, pages, ids[:, cut:], table, jnp.full(3, cut))
    np.testing.assert_allclose(hidden, expected[:, cut:], atol=1e-5)

    grown = jax.tree.map(lambda x: jnp.concatenate([x, x + 7]), pages)  # new: 9 to 17
    whole, used = cut // KEY_BLOCK, BLOCKS - cut // KEY_BLOCK
    to = np.full((3, blocks_of(LENGTH - cut) + 1), 1000)
    to[:, :used] = 9 + 3 * np.arange(3)[:, None] + np.arange(used)
    filled = np.full(3, cut % KEY_BLOCK)
    writes = caches.PageWrites(table[:, (cut - 1) // KEY_BLOCK], filled, np.full(3, LENGTH - cut), to, to[:, used - 1])
    after = caches.write_pages(grown, hidden, k, v, writes)
    for name in "k", "v":
        np.testing.assert_array_equal(getattr(after, name)[:9], getattr(pages, name), "what was there changed")
    np.testing.assert_array_equal(after.hidden[to[:, used - 1]], hidden[:, -1])
    expected_pages, _ = prompts(model, ids, [LENGTH] * 3)
    chain = np.concatenate([table[:, :whole], to[:, :used]], axis=1)
    for row in range(3):
        for name, last in (("k", np.s_[..., : LENGTH % KEY_BLOCK]), ("v", np.s_[..., : LENGTH % KEY_BLOCK, :])):
            found = getattr(after, name)[chain[row]]
            wanted = getattr(expected_pages, name)[3 * row : 3 * row + 3]
            np.testing.assert_allclose(found[:-1], wanted[:-1], atol=1e-5)
            np.testing.assert_allclose(found[-1][last], wanted[-1][last], atol=1e-5)


def test_slots_that_read_together_get_what_each_would_alone(model, ids):
    """Slots 0 and 2 share the first page in one group; all read the rest of their prompts alone."""
    same = ids.at[2, :KEY_BLOCK].set(ids[0, :KEY_BLOCK])
    pages, (alone,) = prompts(model, same, [300, 300, 280])
    cache, starts = caches.init_cache(CONFIG, 3, 20), jnp.array([300, 300, 280])
    expected, _ = decode_step(model, cache, pages, (alone,), ids[:, 0], starts, starts)
    first = caches.SlotGroups(
        np.array([[[0, 2], [1, 3]]]), np.array([[[0, 5, 5], [3, 5, 5]]]), np.zeros((1, 2), int),
        np.ones((1, 2), int), np.full((1, 2), KEY_BLOCK), np.int32(1),
    )  # fmt: skip
    rest = alone._replace(
        page_table=np.roll(alone.page_table, -1, axis=2), first=alone.first + 1, count=alone.count - 1
    )
    found, _ = decode_step(model, cache, pages, (first, rest), ids[:, 0], starts, starts)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_slot_keeps_its_bits_whatever_the_others_hold(model, ids):
    """Other ids, other lengths (more blocks and pages), another slot, a longer cache, garbage behind what is live."""
    start = jnp.full(3, 160)
    pages, groups = prompts(model, ids, [160, 160, 160])
    cache = jax.tree.map(lambda x: x + 0.5, caches.init_cache(CONFIG, 3, 200))
    position = jnp.array([220, 220, 220])
    hidden, after = decode_step(model, cache, pages, groups, ids[:, 20], start, position)
    for k_after, k_before in zip(by_position(after), by_position(cache), strict=True):
        changed = np.flatnonzero((k_after != k_before).any(axis=(0, 1, 3, 4)))
        np.testing.assert_array_equal(changed, [60])  # only the written position

    other_pages, other_readers = prompts(model, ids.at[1:].set(5), [160, 300, 6])
    others, _ = decode_step(
        model, cache, other_pages, other_readers, ids[:, 20].at[1:].set(7), jnp.array([160, 300, 6]),
        jnp.array([220, 480, 6]),
    )  # fmt: skip
    np.testing.assert_array_equal(hidden[0], others[0])

    moved_pages, moved_readers = prompts(model, ids[::-1], [160, 160, 160], [1, 2, 0])
    in_last_slot, _ = decode_step(model, cache, moved_pages, moved_readers, ids[::-1, 20], start, position)
    np.testing.assert_array_equal(hidden[0], in_last_slot[2])

    longer = jax.tree.map(lambda x: jnp.full_like(x, 1e6), caches.init_cache(CONFIG, 3, 800))
    longer = jax.tree.map(lambda x, y: x.at[:, :2].set(y), longer, cache)
    garbage = jax.tree.map(lambda x: x, pages)._replace(
        k=pages.k.at[1, :, :, :, 32:].set(1e6), v=pages.v.at[1, :, :, 32:].set(-1e6)
    )
    in_longer, _ = decode_step(
        model, longer, garbage, groups, ids[:, 20].at[1:].set(7), start, jnp.array([220, 799, 180])
    )
    np.testing.assert_array_equal(hidden[0], in_longer[0])


def test_a_prompt_keeps_its_bits_whatever_the_others_hold(model, ids):
    before = jnp.array([70, 70, 70])
    pages, (groups,) = prompts(model, ids, [70, 70, 70])
    changed, (_,) = prompts(model, ids.at[1:].set(3), [70, 128, 3])
    table = groups.page_table[0]
    hidden, k, v = prefill(model, pages, ids, table, before)
    hidden2, k2, v2 = prefill(model, changed, ids.at[1:].set(5).at[0, 40:].set(9), table, jnp.array([70, 128, 3]))
    np.testing.assert_array_equal(hidden[0, :40], hidden2[0, :40])
    np.testing.assert_array_equal(k[:, 0, :40], k2[:, 0, :40])
    np.testing.assert_array_equal(v[:, 0, :40], v2[:, 0, :40])
    training, training2 = full_forward(model, ids), full_forward(model, ids.at[1:].set(5).at[0, 40:].set(9))
    np.testing.assert_array_equal(training[0, :40], training2[0, :40])


@pytest.fixture(scope="module", params=["all layers", "one of two"])
def windowed(request):
    """A window shorter than a key block, so that blocks before it exist; or one in the second layer alone."""
    if request.param == "all layers":
        config = dataclasses.replace(CONFIG, family="mistral", sliding_window=20)
    else:
        config = dataclasses.replace(CONFIG, family="qwen3", sliding_window=20, full_layers=(0,))
    return init(config, jax.random.key(6))


def test_a_token_sees_its_window_and_no_further(ids):
    """With one layer: the last of `window` tokens alone has the state that it has at the end of a long row."""
    config = dataclasses.replace(CONFIG, num_layers=1, family="mistral", sliding_window=20)
    model = init(config, jax.random.key(6))
    whole = full_forward(model, ids)
    for end in (20, 21, 128, 129, LENGTH):
        alone = full_forward(model, ids[:, end - 20 : end])
        np.testing.assert_allclose(whole[:, end - 1], alone[:, -1], atol=1e-5)


def test_only_layers_with_a_window_forget(windowed, ids):
    changed = full_forward(windowed, ids.at[:, 0].set((ids[:, 0] + 1) % CONFIG.vocab_size))
    difference = jnp.abs(changed - full_forward(windowed, ids)).max(axis=(0, 2))
    reach = 39 if windowed.config.family == "mistral" else LENGTH  # two layers of 20 see 39 tokens
    assert (difference[:reach] > 0).all() and (difference[reach:] == 0).all()


def test_windows_count_within_a_packed_segment(windowed, ids):
    lengths = (140, 120, 40)
    packed = jnp.concatenate([row[:n] for row, n in zip(ids, lengths, strict=True)])[None]
    positions = jnp.concatenate([jnp.arange(n) for n in lengths])[None]
    segments = jnp.repeat(jnp.array([1, 2, 3]), jnp.array(lengths), total_repeat_length=LENGTH)[None]
    separate = full_forward(windowed, ids)
    expected = jnp.concatenate([row[:n] for row, n in zip(separate, lengths, strict=True)])
    np.testing.assert_allclose(forward(windowed, packed, positions, segments)[0], expected, atol=1e-5)


def test_decoding_through_a_window_equals_the_full_forward(windowed, ids):
    """From positions in different pages, and far into what the slots hold, where the pages are not seen any more."""
    expected = full_forward(windowed, ids)
    for starts in ([10, 128, 260], [120, 140, 150]):
        at = jnp.array(starts)
        pages, groups = prompts(windowed, ids, starts)
        cache = caches.init_cache(windowed.config, 3, LENGTH)
        for step in range(LENGTH - max(starts)):
            token = ids[jnp.arange(3), at + step]
            hidden, cache = decode_step(windowed, cache, pages, groups, token, at, at + step)
            np.testing.assert_allclose(hidden, expected[jnp.arange(3), at + step], atol=1e-5)


def test_a_prompt_in_two_pieces_sees_its_window(windowed, ids):
    expected = full_forward(windowed, ids)
    for cut in (10, 200):
        pages, (groups,) = prompts(windowed, ids, [cut] * 3)
        hidden, _, _ = prefill(windowed, pages, ids[:, cut:], groups.page_table[0], jnp.full(3, cut))
        np.testing.assert_allclose(hidden, expected[:, cut:], atol=1e-5)


def test_a_slot_behind_a_window_keeps_its_bits_whatever_the_others_hold(windowed, ids):
    start = jnp.full(3, 30)
    pages, groups = prompts(windowed, ids, [30, 30, 30])
    cache = jax.tree.map(lambda x: x + 0.5, caches.init_cache(windowed.config, 3, LENGTH))
    far, _ = decode_step(windowed, cache, pages, groups, ids[:, 140], start, jnp.array([140, 140, 140]))
    idle, _ = decode_step(windowed, cache, pages, groups, ids[:, 140], start, jnp.array([140, 30, 70]))
    np.testing.assert_array_equal(far[0], idle[0])


def test_cache_length_is_a_whole_number_of_blocks():
    cache = caches.init_cache(CONFIG, 2, 129)
    assert cache.k.shape == (2, 2, 2, 2, 8, KEY_BLOCK)
    assert cache.v.shape == (2, 2, 2, 2, KEY_BLOCK, 8)


@pytest.mark.parametrize("tied", [True, False])
def test_class_logits_are_columns_of_the_logits(tied, ids):
    model = init(dataclasses.replace(CONFIG, tie_embeddings=tied), jax.random.key(2))
    hidden = jax.random.normal(jax.random.key(3), (2, 5, CONFIG.hidden_size))
    whole = decoder.logits(model, hidden)
    assert whole.shape == (2, 5, CONFIG.vocab_size)
    columns = decoder.class_logits(model, hidden, (7, 0, 60))
    np.testing.assert_allclose(columns, whole[..., jnp.array([7, 0, 60])], atol=1e-5)


def test_bfloat16_computes_near_float32_with_float32_gradients(model, ids):
    def loss(model, dtype):
        hidden = decoder.hidden_states(model, *one_segment(ids[:, :20]), dtype=dtype)
        assert hidden.dtype == dtype
        return jnp.mean(decoder.logits(model, hidden) ** 2)

    value, grads = jax.jit(jax.value_and_grad(loss), static_argnums=1)(model, jnp.bfloat16)
    assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(value, jax.jit(loss, static_argnums=1)(model, jnp.float32), rtol=0.03)


def test_remat_gives_the_same_gradients_and_every_parameter_has_one(ids):
    config = dataclasses.replace(CONFIG, family="qwen2", tie_embeddings=False)
    model = init(config, jax.random.key(4))
    weight = jax.random.normal(jax.random.key(5), (3, LENGTH, CONFIG.hidden_size))

    def loss(model, remat):
        hidden = decoder.hidden_states(model, *one_segment(ids), remat=remat)
        return jnp.sum(hidden * weight) + jnp.sum(decoder.logits(model, hidden[:, -1]) ** 2)

    grad = jax.jit(jax.grad(loss), static_argnums=1)
    plain = grad(model, "none")
    for remat in ("minimal", "full"):
        again = jax.tree.leaves(grad(model, remat))
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(plain), again, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-4, err_msg=jax.tree_util.keystr(path))
            assert jnp.abs(a).max() > 0, jax.tree_util.keystr(path)


def test_no_parameter_is_shared_and_all_have_logical_axes(model):
    variables = jax.tree.leaves(model, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    assert len({id(v) for v in variables}) == len(variables) == len(jax.tree.leaves(model))
    assert len({id(v.get_value()) for v in variables}) == len(variables)
    for variable in variables:
        assert len(decoder.logical_axes(variable)) == variable.get_value().ndim
    assert decoder.logical_axes(model.blocks.attention.query.kernel) == ("layers", "embed", "heads")
    assert decoder.logical_axes(model.embed) == ("vocab", "embed")
    assert nnx.state(model, graph=False) is not None  # tree mode accepts the module: nothing is shared


def test_building_leaves_global_flax_settings_alone():
    with nnx.set_graph_mode(True), nnx.set_graph_updates(True), nnx.use_eager_sharding(True):
        first = decoder.init_decoder(CONFIG, jax.random.key(0))
        assert nnx.using_eager_sharding()
    with nnx.set_graph_mode(False), nnx.set_graph_updates(False), nnx.use_eager_sharding(False):
        second = decoder.init_decoder(CONFIG, jax.random.key(0))
        assert not nnx.using_eager_sharding()
    assert jax.tree.structure(first) == jax.tree.structure(second)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads=3"),
        ({"head_dim": 7}, "head_dim=7"),
        ({"family": "gpt2"}, "family='gpt2'"),
        ({"sliding_window": 4}, "sliding_window=4.*'llama'"),
        ({"family": "mistral", "sliding_window": 0}, "sliding_window=0"),
        ({"family": "mistral", "sliding_window": 4, "full_layers": (0,)}, r"full_layers=\(0,\).*'mistral'"),
        ({"family": "qwen3", "full_layers": (0,)}, "sliding_window=None"),
        ({"family": "qwen3", "sliding_window": 4, "full_layers": (0, 2)}, r"full_layers=\(0, 2\)"),
        ({"family": "qwen3", "sliding_window": 4, "full_layers": (0, 1)}, "not all"),
    ],
)
def test_a_config_that_cannot_be_computed_is_an_error(change, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(CONFIG, **change)
