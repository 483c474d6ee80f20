import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from spare_jax.models import decoder
from spare_jax.models.config import DecoderConfig
from spare_jax.training import batches, losses
from spare_jax.training.batches import Example

GOOD, BAD = 5, 7
CONFIG = DecoderConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4,
    tie_embeddings=False,
)  # fmt: skip
TAG_LOSS, LM_LOSS = losses.TokenTagLoss(GOOD, BAD), losses.LanguageModelLoss()


def _sum_and_count(loss):
    """A loss of one term as (model, batch) -> (sum, count)."""
    return jax.jit(lambda model, batch: (loss.sums(model, batch)[0], loss.counts(batch)[0]))


tag_loss, lm_loss = _sum_and_count(TAG_LOSS), _sum_and_count(LM_LOSS)


@pytest.fixture(scope="module")
def model():
    return decoder.init_decoder(CONFIG, jax.random.key(1))


def _examples(count=5, seed=0):
    rng = np.random.default_rng(seed)
    examples = []
    for length in rng.integers(6, 20, count):
        tags = np.sort(rng.choice(length, 3, replace=False))
        examples.append(Example(rng.integers(1, 32, length), rng.random(length) < 0.5, tags, rng.random(3)))
    return examples


def _batch(examples, row_length=40):
    packed = batches.pack(examples, row_length)
    return jax.tree.map(jnp.asarray, batches.take(packed, np.arange(packed.rows)))


def _unpacked(examples, row_length=40):
    rows = [batches.pack([example], row_length).arrays for example in examples]
    return {name: jnp.concatenate([row[name] for row in rows]) for name in rows[0]}


def _log_softmax(z):
    z = np.asarray(z, np.float64)
    return z - np.log(np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True)) - z.max(-1, keepdims=True)


@jax.jit
def _logits(model, ids):
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    return decoder.logits(model, decoder.hidden_states(model, ids, positions, jnp.ones_like(ids)))


def _all_logits(model, example):
    """Logits of a text alone in a row, from the plain forward pass; what follows it cannot matter."""
    return np.asarray(_logits(model, jnp.asarray([[*example.ids] + [0] * (40 - len(example.ids))]))[0])


def _tag_loss_in_numpy(model, example):
    total = 0.0
    for tag, label in zip(example.tags, example.labels, strict=True):
        if label is not None:
            bad, good = _log_softmax(_all_logits(model, example)[tag][[BAD, GOOD]])
            total -= label * good + (1 - label) * bad
    return total


def test_tag_loss_equals_the_formula_on_full_logits(model):
    examples = _examples()
    total, count = tag_loss(model, _batch(examples))
    np.testing.assert_allclose(total, sum(_tag_loss_in_numpy(model, e) for e in examples), rtol=1e-5)
    assert count == 15


def test_one_tag_is_one_term(model):
    example = Example([3, 4, 9, 8], tags=[2], labels=[1.0])
    total, count = tag_loss(model, _batch([example]))
    _, good = _log_softmax(_all_logits(model, example)[2][[BAD, GOOD]])
    np.testing.assert_allclose(total, -good, rtol=1e-5)
    assert count == 1


def test_tag_gradient_equals_that_of_the_whole_softmax_with_other_tokens_excluded(model):
    batch = _batch(_examples())

    def whole(model):
        hidden = decoder.hidden_states(model, batch["ids"], batch["positions"], batch["segments"])
        others = jnp.full(32, -1e30).at[jnp.array([GOOD, BAD])].set(0.0)
        logp = jax.nn.log_softmax(decoder.logits(model, hidden) + others)
        logp = jnp.take_along_axis(logp, batch["tags"][..., None], axis=1)
        losses = batch["labels"] * logp[..., GOOD] + (1 - batch["labels"]) * logp[..., BAD]
        return -jnp.sum(losses * batch["tag_weights"])

    got = jax.jit(jax.grad(lambda m: TAG_LOSS.sums(m, batch)[0]))(model)
    expected = jax.jit(jax.grad(whole))(model)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=5e-6), got, expected)


def test_soft_labels_lie_between_the_hard_ones(model):
    def loss(label):
        return float(tag_loss(model, _batch([Example([3, 4, 9], tags=[1, 2], labels=[label, 1.0])]))[0])

    assert loss(1.0) == loss(True) and loss(0.0) == loss(False)
    np.testing.assert_allclose(loss(0.3), 0.3 * loss(1.0) + 0.7 * loss(0.0), rtol=1e-6)


def test_the_gradient_of_a_soft_label_mixes_those_of_the_hard_ones(model):
    def gradient(label):
        batch = _batch([Example([3, 4, 9], tags=[1, 2], labels=[label, None])])
        return jax.jit(jax.grad(lambda m: tag_loss(m, batch)[0]))(model)

    right, wrong = gradient(True), gradient(False)
    jax.tree.map(np.testing.assert_array_equal, (gradient(1.0), gradient(0.0)), (right, wrong))
    mixed = jax.tree.map(lambda a, b: 0.375 * a + 0.625 * b, right, wrong)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradient(0.375), mixed)
    assert max(float(abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (right, wrong)), strict=True)) > 1e-3


def test_unknown_labels_count_for_nothing(model):
    ids = [3, 4, 9, 8, 2]
    known = tag_loss(model, _batch([Example(ids, tags=[1, 4], labels=[0.0, 1.0])]))
    for unknown in (None, float("nan")):
        with_unknown = tag_loss(model, _batch([Example(ids, tags=[1, 2, 4], labels=[0.0, unknown, 1.0])]))
        np.testing.assert_allclose(with_unknown, known, rtol=1e-6)


def test_weights_of_tokens_scale_loss_and_count(model):
    ids, weights = [3, 4, 9, 8], np.array([0.0, 1.0, 0.0, 1.0])
    once = np.array(lm_loss(model, _batch([Example(ids, weights)])))
    half = np.array(lm_loss(model, _batch([Example(ids, 0.5 * weights)])))
    np.testing.assert_allclose(half, 0.5 * once, rtol=1e-6)


@pytest.mark.parametrize("loss", [tag_loss, lm_loss], ids=["tag", "lm"])
def test_packing_does_not_change_the_loss(model, loss):
    examples = _examples(8)
    packed, alone = _batch(examples), _unpacked(examples)
    assert len(packed["ids"]) < len(alone["ids"])
    np.testing.assert_allclose(loss(model, packed), loss(model, alone), rtol=1e-6)


def test_lm_loss_equals_the_formula_on_full_logits(model):
    examples, total, count = _examples(), 0.0, 0
    for example in examples:
        logp = _log_softmax(_all_logits(model, example))
        for t in range(1, len(example.ids)):
            if example.token_weights[t]:
                total, count = total - logp[t - 1, example.ids[t]], count + 1
    got = lm_loss(model, _batch(examples))
    np.testing.assert_allclose(got, (total, count), rtol=1e-5)


def test_lm_loss_in_chunks_equals_the_whole(model, monkeypatch):
    batch = _batch(_examples(8))

    def gradient():
        return jax.jit(jax.value_and_grad(lambda m: LM_LOSS.sums(m, batch)[0]))(model)

    whole = gradient()
    monkeypatch.setattr(losses, "WHOLE_LOGITS", 0)
    for chunk in (1, 7, 8 * len(batch["ids"])):
        monkeypatch.setattr(losses, "CHUNK_TOKENS_ON_CPU", chunk)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6), gradient(), whole)


def test_chunks_that_nobody_asks_for_are_left_out(model, monkeypatch):
    made, logits = [], decoder.logits

    def counted(model, hidden):
        jax.debug.callback(lambda: made.append(hidden.shape))
        return logits(model, hidden)

    batch = _batch([Example([1] * 32, [False] * 22 + [True] * 10), Example([1] * 29, [False] * 26 + [True] * 3)], 33)
    whole = losses.token_logps(model, batch)
    assert (whole != 0).sum() == 13
    monkeypatch.setattr(decoder, "logits", counted)
    monkeypatch.setattr(losses, "WHOLE_LOGITS", 0)
    monkeypatch.setattr(losses, "CHUNK_TOKENS_ON_CPU", 8)
    np.testing.assert_allclose(jax.jit(losses.token_logps)(model, batch), whole, rtol=1e-5)
    jax.effects_barrier()
    assert len(made) == 2  # of 9, of 66 tokens


def test_neftune_adds_noise_by_the_key_in_training_alone(model):
    batch = _batch(_examples())
    noisy = losses.LanguageModelLoss(neftune_alpha=5)
    loss = jax.jit(lambda seed: noisy.sums(model, batch, key=jax.random.key(seed))[0])
    plain, _ = lm_loss(model, batch)
    assert loss(0) == loss(0) and len({float(loss(0)), float(loss(1)), float(plain)}) == 3
    assert jax.jit(noisy.sums)(model, batch)[0] == plain
    assert LM_LOSS.sums(model, batch, key=jax.random.key(0))[0] == pytest.approx(plain)


def test_the_noise_of_neftune_follows_from_the_length_of_a_text_of_its_own(model, monkeypatch):
    seen, hidden_states = [], decoder.hidden_states

    def recorded(*args, noise=None, **options):
        seen.append(noise)
        return hidden_states(*args, noise=noise, **options)

    monkeypatch.setattr(decoder, "hidden_states", recorded)
    batch = _batch([Example([1] * 4, [1] * 4), Example([1] * 16, [1] * 16)])
    losses.LanguageModelLoss(neftune_alpha=5).sums(model, batch, key=jax.random.key(0))
    (noise,) = np.abs(seen[0])
    for start, length in ((0, 4), (4, 16)):
        largest, mean = noise[start : start + length].max(), noise[start : start + length].mean()
        bound = 5 / np.sqrt(length * CONFIG.hidden_size)
        assert 0.9 * bound < largest <= bound and mean == pytest.approx(bound / 2, rel=0.2)


def test_no_array_of_batch_by_length_by_vocabulary(monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_TOKENS_ON_CPU", 256)
    config = DecoderConfig(**{**vars(CONFIG), "vocab_size": 2**17})
    model = jax.eval_shape(functools.partial(decoder.init_decoder, config), jax.random.key(0))
    batch = jax.eval_shape(lambda: _batch([Example([1] * 256, [True] * 256, [5], [1.0])] * 4, 256))
    pairs = batches.pack_pairs([batches.Pair([1] * 8, [2] * 120, [3] * 120)] * 4, 256).arrays
    cases = (TAG_LOSS, batch, 16), (LM_LOSS, batch, 256), (losses.ORPOLoss(), pairs, 256)
    for loss, batch, positions in cases:  # the head and its gradient are [16, vocabulary]
        jaxpr = jax.make_jaxpr(jax.grad(lambda m, b, loss=loss: loss.sums(m, b).sum()))(model, batch)
        shapes = [v.aval.shape for equation in _equations(jaxpr.jaxpr) for v in equation.outvars]
        assert max(np.prod(shape) for shape in shapes if 2**17 in shape) <= positions * 2**17


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner)


@pytest.mark.parametrize("loss", [TAG_LOSS, LM_LOSS], ids=["tag", "lm"])
def test_remat_and_bfloat16_change_the_loss_little(model, loss):
    batch = _batch(_examples(8))

    def gradient(model, **options):
        return jax.jit(jax.value_and_grad(lambda m: loss.sums(m, batch, **options)[0]))(model)

    exact, remat = gradient(model), gradient(model, remat="full")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), exact, remat)
    half, gradients = gradient(model, dtype=jnp.bfloat16)
    np.testing.assert_allclose(half, exact[0], rtol=1e-2)
    assert half != exact[0]
    assert {g.dtype for g in jax.tree.leaves(gradients)} == {jnp.dtype(jnp.float32)}
