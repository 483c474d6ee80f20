"""Properties of the decoder that hold without a reference: packing, caching, independence of rows, tree structure."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from spare_jax.models import decoder

CONFIG = decoder.DecoderConfig(
    vocab_size=61, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8
)
LENGTH = 150  # more than one query block and more than two key blocks

init = jax.jit(decoder.init_decoder, static_argnums=0)
forward = jax.jit(decoder.hidden_states, static_argnames=("remat", "dtype"))
prefill = jax.jit(decoder.prefill)
decode_step = jax.jit(decoder.decode_step)


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


def insert(cache, k, v):
    return decoder.insert_prompts(cache, k, v, jnp.arange(k.shape[1]), jnp.arange(k.shape[1]))


def by_position(cache):
    """Keys and values as [layers, slots, position, kv_heads, head_dim]."""
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


@pytest.mark.parametrize("start", [1, 64, 127, 140])
def test_decoding_from_any_position_equals_the_full_forward(model, ids, start):
    expected = full_forward(model, ids)
    hidden, k, v = prefill(model, ids, jnp.full(3, start))
    np.testing.assert_allclose(hidden[:, :start], expected[:, :start], atol=1e-5)
    cache = insert(decoder.init_cache(CONFIG, 3, LENGTH), k[:, :, :start], v[:, :, :start])
    for position in range(start, start + 5):
        hidden, cache = decode_step(model, cache, ids[:, position], jnp.full(3, position))
        np.testing.assert_allclose(hidden, expected[:, position], atol=1e-5)


def test_slots_at_different_positions(model, ids):
    expected = full_forward(model, ids)
    lengths = jnp.array([3, 64, 141])
    _, k, v = prefill(model, ids, lengths)
    cache = insert(decoder.init_cache(CONFIG, 3, LENGTH), k, v)
    for step in range(3):
        at = lengths + step
        hidden, cache = decode_step(model, cache, ids[jnp.arange(3), at], at)
        np.testing.assert_allclose(hidden, expected[jnp.arange(3), at], atol=1e-5)


def test_a_slot_keeps_its_bits_whatever_the_others_hold(model, ids):
    """Other ids, other lengths (more key blocks), another slot, a longer cache, garbage after the live positions."""
    _, k, v = prefill(model, ids, jnp.full(3, LENGTH))
    cache = insert(decoder.init_cache(CONFIG, 3, LENGTH), k, v)
    hidden, after = decode_step(model, cache, ids[:, 20], jnp.array([20, 20, 20]))
    others, _ = decode_step(model, cache, ids[:, 20].at[1:].set(7), jnp.array([20, 149, 90]))
    np.testing.assert_array_equal(hidden[0], others[0])

    moved = decoder.KVCache(cache.k[:, :, ::-1], cache.v[:, :, ::-1])
    in_last_slot, _ = decode_step(model, moved, ids[::-1, 20], jnp.array([20, 20, 20]))
    np.testing.assert_array_equal(hidden[0], in_last_slot[2])

    garbage = jax.tree.map(lambda x: jnp.full_like(x, 1e6), decoder.init_cache(CONFIG, 3, 400))
    longer = insert(garbage, k.at[:, :, 21:].set(1e6), v.at[:, :, 21:].set(-1e6))
    in_longer, _ = decode_step(model, longer, ids[:, 20].at[1:].set(7), jnp.array([20, 399, 90]))
    np.testing.assert_array_equal(hidden[0], in_longer[0])
    keys_after, _ = by_position(after)
    np.testing.assert_array_equal(keys_after[:, :, 21:LENGTH], k[:, :, 21:])  # only the written position changed


def test_a_prompt_keeps_its_bits_whatever_the_others_hold(model, ids):
    lengths = jnp.array([40, 20, 150])
    hidden, k, v = prefill(model, ids, lengths)
    changed = ids.at[1:].set(5).at[0, 40:].set(9)
    hidden2, k2, v2 = prefill(model, changed, jnp.array([40, 150, 3]))
    np.testing.assert_array_equal(hidden[0, :40], hidden2[0, :40])
    np.testing.assert_array_equal(k[:, 0, :40], k2[:, 0, :40])
    np.testing.assert_array_equal(v[:, 0, :40], v2[:, 0, :40])
    training, training2 = full_forward(model, ids), full_forward(model, changed)
    np.testing.assert_array_equal(training[0, :40], training2[0, :40])


@pytest.fixture(scope="module", params=["all layers", "one of two"])
def windowed(request):
    """A window shorter than a key block, so that blocks before it exist; or one in the second layer alone."""
    if request.param == "all layers":
        config = dataclasses.replace(CONFIG, family="mistral", sliding_window=20)
    else:
        config = dataclasses.replace(CONFIG, family="qwen3", qk_norm=True, sliding_window=20, full_layers=(0,))
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
    lengths = (70, 60, 20)
    packed = jnp.concatenate([row[:n] for row, n in zip(ids, lengths, strict=True)])[None]
    positions = jnp.concatenate([jnp.arange(n) for n in lengths])[None]
    segments = jnp.repeat(jnp.array([1, 2, 3]), jnp.array(lengths), total_repeat_length=LENGTH)[None]
    separate = full_forward(windowed, ids)
    expected = jnp.concatenate([row[:n] for row, n in zip(separate, lengths, strict=True)])
    np.testing.assert_allclose(forward(windowed, packed, positions, segments)[0], expected, atol=1e-5)


def test_decoding_through_a_window_equals_the_full_forward(windowed, ids):
    """From positions in different key blocks, and with all far on, where the first block is not read any more."""
    expected = full_forward(windowed, ids)
    for starts in ([5, 64, 141], [100, 120, 141]):
        at = jnp.array(starts)
        _, k, v = prefill(windowed, ids, at)
        cache = insert(decoder.init_cache(windowed.config, 3, LENGTH), k, v)
        hidden, cache = decode_step(windowed, cache, ids[jnp.arange(3), at], at)
        again, _ = decode_step(windowed, cache, ids[jnp.arange(3), at + 1], at + 1)
        np.testing.assert_allclose(hidden, expected[jnp.arange(3), at], atol=1e-5)
        np.testing.assert_allclose(again, expected[jnp.arange(3), at + 1], atol=1e-5)


def test_a_slot_behind_a_window_keeps_its_bits_whatever_the_others_hold(windowed, ids):
    _, k, v = prefill(windowed, ids, jnp.full(3, LENGTH))
    cache = insert(decoder.init_cache(windowed.config, 3, LENGTH), k, v)
    far, _ = decode_step(windowed, cache, ids[:, 140], jnp.array([140, 140, 140]))
    with_idle, _ = decode_step(windowed, cache, ids[:, 140], jnp.array([140, 0, 70]))  # the first block is read
    np.testing.assert_array_equal(far[0], with_idle[0])


def test_cache_length_is_a_whole_number_of_blocks():
    cache = decoder.init_cache(CONFIG, 2, 65)
    assert cache.k.shape == (2, 2, 2, 2, 8, decoder.KEY_BLOCK)
    assert cache.v.shape == (2, 2, 2, 2, decoder.KEY_BLOCK, 8)


def test_prompts_are_copied_to_their_slots(model, ids):
    _, k, v = prefill(model, ids, jnp.full(3, LENGTH))
    empty = decoder.init_cache(CONFIG, 4, 300)
    cache = decoder.insert_prompts(empty, k, v, rows=jnp.array([2, 0, 2, 1]), slots=jnp.array([1, 3, 0, 9]))
    for found, expected in zip(by_position(cache), (k, v), strict=True):
        for slot, row in ((1, 2), (3, 0), (0, 2)):
            np.testing.assert_array_equal(found[:, slot, :LENGTH], expected[:, row])
        assert not found[:, 2].any(), "a slot number past the end must be left out"


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
    config = dataclasses.replace(CONFIG, family="qwen2", attention_bias=True, tie_embeddings=False)
    model = init(config, jax.random.key(4))
    weight = jax.random.normal(jax.random.key(5), (3, LENGTH, CONFIG.hidden_size))

    def loss(model, remat):
        hidden = decoder.hidden_states(model, *one_segment(ids), remat=remat)
        return jnp.sum(hidden * weight) + jnp.sum(decoder.logits(model, hidden[:, -1]) ** 2)

    grad = jax.jit(jax.grad(loss), static_argnums=1)
    plain, again = grad(model, False), grad(model, True)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(plain), jax.tree.leaves(again), strict=True):
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
        ({"attention_bias": True}, "attention_bias=True"),
        ({"qk_norm": True}, "qk_norm=True"),
        ({"family": "qwen3"}, "qk_norm=False"),
        ({"sliding_window": 4}, "sliding_window=4.*'llama'"),
        ({"family": "mistral", "sliding_window": 0}, "sliding_window=0"),
        ({"family": "mistral", "sliding_window": 4, "full_layers": (0,)}, r"full_layers=\(0,\).*'mistral'"),
        ({"family": "qwen3", "qk_norm": True, "full_layers": (0,)}, "sliding_window=None"),
        ({"family": "qwen3", "qk_norm": True, "sliding_window": 4, "full_layers": (0, 2)}, r"full_layers=\(0, 2\)"),
        ({"family": "qwen3", "qk_norm": True, "sliding_window": 4, "full_layers": (0, 1)}, "not all"),
    ],
)
def test_a_config_that_cannot_be_computed_is_an_error(change, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(CONFIG, **change)
