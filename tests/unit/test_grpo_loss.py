"""GRPO's loss: its formula token by token, and its packing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import CONFIG

from spare_jax.models import decoder
from spare_jax.training import batches, losses
from spare_jax.training.batches import Sampled, pack_samples, rows_for

LOSSES = {
    "token": losses.GRPOLoss(0.2, 0.3, kl_weight=0.5),
    "sequence": losses.GRPOLoss(0.2, 0.3, kl_weight=0.5, kl="k1", mean="sequence"),
    "constant": losses.GRPOLoss(0.2, 0.3, kl_weight=0.5, kl="k2", mean="constant", max_tokens=50),
}


def samples(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Sampled(
            rng.integers(1, 32, int(rng.integers(1, 5))),
            rng.integers(1, 32, n),
            -np.log(32) + rng.normal(0, 0.6, n),
            rng.normal(0, 1, n),
        )
        for n in rng.integers(1, 8, count).tolist()
    ]


def packed(made, row_length=24, rows=8):
    arrays = pack_samples(made, row_length, [rows]).arrays
    # Any numbers will do for the reference, if they are the same for the same sample however it is packed.
    return arrays | {"reference_logps": 0.9 * arrays["sampled_logps"]}


@pytest.fixture(scope="module")
def model():
    return decoder.init_decoder(CONFIG, jax.random.key(1))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_chunks_change_neither_value_nor_gradient(model, monkeypatch, loss):
    """Also where nothing at all was sampled, and where what was not sampled is all but impossible."""
    sharp = jax.tree.map(lambda x: 30 * x, model)
    nothing = {name: np.zeros_like(array) for name, array in packed(samples(9)).items()}
    cases = [(model, packed(samples(9))), (model, nothing)]

    def measured():
        gradient = jax.jit(jax.value_and_grad(lambda m, b: jnp.sum(loss.sums(m, b)[:2])))
        return [gradient(*case) for case in cases], jax.jit(losses.token_logps)(sharp, cases[0][1])

    whole, logps = measured()
    monkeypatch.setattr(losses, "WHOLE_LOGITS", 0)
    monkeypatch.setattr(losses, "CHUNK_TOKENS_ON_CPU", 13)
    chunked, again = measured()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=5e-6), chunked, whole)
    np.testing.assert_allclose(again, logps, rtol=1e-5, atol=1e-5)
    assert (np.asarray(again)[cases[0][1]["loss_weights"] == 0] == 0).all() and np.isfinite(again).all()


def by_formula(loss, model, made):
    """The objective and what is watched, one sample at a time in float64."""
    per_token, kls, clipped, ratios = [], [], [], []
    for sample in made:
        ids = jnp.array([*sample.prompt, *sample.completion])[None]
        states = decoder.hidden_states(model, ids, jnp.arange(ids.shape[1])[None], jnp.ones_like(ids))
        table = jax.nn.log_softmax(decoder.logits(model, states)[0])[len(sample.prompt) - 1 : -1]
        logps = np.asarray(table[np.arange(len(sample.completion)), sample.completion], np.float64)
        r, a = np.exp(logps - sample.logprobs), sample.advantages
        d = 0.9 * sample.logprobs - logps
        kl = {"k1": -d, "k2": d**2 / 2, "k3": np.exp(d) - d - 1}[loss.kl]
        low, high = 1 - loss.clip_low, 1 + loss.clip_high
        policy = [-min(x * y, min(max(x, low), high) * y) for x, y in zip(r, a, strict=True)]
        per_token.append(np.array(policy) + loss.kl_weight * kl)
        kls.append(kl)
        clipped.append(((r > high) & (a > 0)) | ((r < low) & (a < 0)))
        ratios.append(np.abs(np.log(r)))
    total = {
        "token": np.concatenate(per_token).mean(),
        "sequence": np.mean([of.mean() for of in per_token]),
        "constant": sum(of.sum() for of in per_token) / (50 * len(made)),
    }[loss.mean]
    return [total, *(np.concatenate(of).mean() for of in (kls, clipped, ratios))]


@jax.jit
def terms(model, batch):
    return [(loss.sums(model, batch), loss.counts(batch)) for loss in LOSSES.values()]


def test_the_loss_equals_its_formula_token_by_token(model):
    made = samples(9)
    for loss, (sums, counts) in zip(LOSSES.values(), terms(model, packed(made)), strict=True):
        means = sums / counts
        wanted = by_formula(loss, model, made)
        np.testing.assert_allclose([means[0] + means[1], *means[2:]], wanted, rtol=2e-5)
        assert 0.1 < wanted[2] < 0.9  # some tokens are clipped, and some are not


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 8))
def test_packing_does_not_change_sums_and_counts(model, seed, count):
    made = samples(count, seed)
    together = terms(model, packed(made))
    alone = [packed([sample], rows=1) for sample in made]
    alone += [jax.tree.map(np.zeros_like, alone[0])] * (8 - count)
    apart = terms(model, {name: np.concatenate([batch[name] for batch in alone]) for name in alone[0]})
    for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)


def test_what_is_watched_is_no_part_of_the_gradient_and_no_advantage_has_none(model):
    batch, free = packed(samples(5)), losses.GRPOLoss(kl_weight=0.0)
    batch["advantages"] *= 0

    def objective(model):
        return jnp.sum(free.sums(model, batch)[: -len(free.watched)])

    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(jax.jit(jax.grad(objective))(model)))
    assert losses.GRPOLoss.watched == ("kl", "clipped", "log_ratio")


def test_a_batch_without_the_reference_says_so(model):
    batch = pack_samples(samples(2), 24, [2]).arrays
    with pytest.raises(ValueError, match="without the reference's log-probabilities"):
        losses.GRPOLoss().sums(model, batch)
    for wrong in (dict(kl="k4"), dict(mean="group"), dict(mean="constant")):
        with pytest.raises(ValueError, match=r"unknown: use|divides by max_tokens"):
            losses.GRPOLoss(**wrong)


@given(st.integers(1, 40), st.integers(5, 30), st.integers(0, 99))
def test_the_rows_that_were_promised_suffice(count, row_length, seed):
    rng = np.random.default_rng(seed)
    longest = int(rng.integers(2, row_length + 1))
    made = [
        Sampled([1], np.ones(n, int), np.ones(n), np.ones(n)) for n in rng.integers(1, longest, count)
    ]  # fmt: skip
    promised = rows_for(count, longest, row_length)
    found = pack_samples(made, row_length, [promised])
    assert found.arrays["loss_weights"].sum() == found.counts.targets == sum(len(s.completion) for s in made)
    np.testing.assert_allclose(found.arrays["sequence_weights"].sum(), count, rtol=1e-5)
    # Of all sizes the least that suffices is taken: as many rows as have something in them.
    least = pack_samples(made, row_length, range(1, promised + 1)).arrays["segments"]
    assert (least > 0).any(axis=1).all() and np.array_equal(least, found.arrays["segments"][: len(least)])


def test_samples_that_do_not_fit_or_are_empty_are_errors():
    sample = samples(1)[0]
    with pytest.raises(ValueError, match=r"1 samples of up to \d+ tokens do not fit into 1 rows of 3"):
        pack_samples([sample], 3, [1])
    with pytest.raises(ValueError, match="raise row_length to 9"):
        rows_for(3, 9, 8)
    for wrong in (dict(prompt=[]), dict(completion=[], logprobs=[], advantages=[]), dict(advantages=[])):
        with pytest.raises(ValueError, match="sample 0: "):
            pack_samples([dataclasses.replace(sample, **wrong)], 24, [1])
    assert batches.pack_samples([], 24, [1, 2]).rows == 1
