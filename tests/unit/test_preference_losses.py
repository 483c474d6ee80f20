"""ORPO and DPO: formulas, packing, chunks, microbatches, and training that is killed and goes on."""

import dataclasses
import functools
import pathlib
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import own_process
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import CONFIG, TRAIN, assert_equal, rows

from spare_jax.models import decoder, sharding
from spare_jax.training import batches, loop, losses, setup
from spare_jax.training.batches import Pair

ROW = 32
LOSSES = {
    "orpo": losses.ORPOLoss(0.5),
    "orpo_trl": losses.ORPOLoss(0.5, nll_on_prompt=True),
    "dpo": losses.DPOLoss(0.5),
}
KILLED = pathlib.Path(__file__).parent / "killed_training.py"


def pairs(count, seed=0):
    """Pairs whose prompts and completions differ in length; what is chosen begins with an even id."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        prompt, chosen, rejected = (rng.integers(10, 32, n) for n in rng.integers(1, 6, 3))
        chosen[0], rejected[0] = chosen[0] // 2 * 2, rejected[0] // 2 * 2 + 1
        made.append(Pair(prompt, chosen, rejected))
    return made


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh(
        (1, 1, 1), sharding.MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3, devices=jax.devices()[:1]
    )


@pytest.fixture(scope="module")
def model():
    return decoder.init_decoder(CONFIG, jax.random.key(1))


def packed(made, row_length=ROW, num_rows=None, max_pairs=None):
    """A batch of pairs, with a made-up reference that follows from the completion, padded to a fixed shape."""
    batch = batches.pack_pairs(made, row_length)
    places = np.arange(num_rows or batch.rows)
    arrays = batches.take(batch, np.where(places < batch.rows, places, -1))
    width = (max_pairs or arrays["pair_weights"].shape[1]) - arrays["pair_weights"].shape[1]
    arrays["pair_weights"] = np.pad(arrays["pair_weights"], ((0, 0), (0, width)))
    sums = np.asarray(losses._pair_sums(jnp.asarray(1.0 * arrays["ids"]), arrays))
    return arrays | {"reference_logps": -0.1 * sums}


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@jax.jit
def all_logits(model, ids):
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    return decoder.logits(model, decoder.hidden_states(model, ids, positions, jnp.ones_like(ids)))


def logps_alone(model, prompt, completion):
    """Log-probabilities in float64 of all tokens of a text but the first, and which are the completion's."""
    ids = np.concatenate([prompt, completion])
    row = np.zeros((1, ROW), np.int32)
    row[0, : len(ids)] = ids
    logits = all_logits(model, jnp.asarray(row))[0, : len(ids) - 1]
    return log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]], np.arange(1, len(ids)) >= len(prompt)


def expected(name, model, made):
    """The objective in float64, pair by pair."""
    nll, tokens, total, weights = 0.0, 0.0, 0.0, 0.0
    for pair in made:
        (chosen, of_chosen), (rejected, of_rejected) = (
            logps_alone(model, pair.prompt, text) for text in (pair.chosen, pair.rejected)
        )
        weights += 1
        if name == "dpo":
            gains = [
                logps[mask].sum() + 0.1 * (sum(pair.prompt) + sum(text))
                for logps, mask, text in ((chosen, of_chosen, pair.chosen), (rejected, of_rejected, pair.rejected))
            ]
            total += np.logaddexp(0, -0.5 * (gains[0] - gains[1]))
            continue
        means = chosen[of_chosen].mean(), rejected[of_rejected].mean()
        odds = [mean - np.log(-np.expm1(mean)) for mean in means]
        total += 0.5 * np.logaddexp(0, odds[1] - odds[0])
        covered = np.ones_like(of_chosen) if name == "orpo_trl" else of_chosen
        nll -= chosen[covered].sum()
        tokens += covered.sum()
    return (nll / tokens if tokens else 0.0) + total / weights


@jax.jit
def objectives(model, batch):
    return [jnp.sum(loss.sums(model, batch) / loss.counts(batch)) for loss in LOSSES.values()]


def test_losses_equal_their_formulas_pair_by_pair(model):
    made = pairs(5)
    batch = packed(made)
    assert batch["pair_weights"].shape == (2, 3) and (batch["pair_weights"] == 0).any()
    found = objectives(model, batch)
    np.testing.assert_allclose(found, [expected(name, model, made) for name in LOSSES], rtol=1e-5)
    assert len({round(float(value), 3) for value in found}) == 3


@jax.jit
def terms(model, batch):
    return [(loss.sums(model, batch), loss.counts(batch)) for loss in LOSSES.values()]


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_packing_does_not_change_sums_and_counts(model, seed, count):
    made = pairs(count, seed)
    alone = [packed([pair], num_rows=1, max_pairs=1) for pair in made]
    alone += [jax.tree.map(np.zeros_like, alone[0])] * (6 - count)
    alone = {name: np.concatenate([batch[name] for batch in alone]) for name in alone[0]}
    together = packed(made, num_rows=6, max_pairs=6)
    for ours, theirs in zip(*(jax.tree.leaves(terms(model, batch)) for batch in (together, alone)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_chunks_change_neither_losses_nor_gradients(model, monkeypatch):
    batch = packed(pairs(5))

    def gradient():
        return jax.jit(jax.value_and_grad(lambda m: sum(jnp.sum(loss.sums(m, batch)) for loss in LOSSES.values())))(
            model
        )

    whole = gradient()
    monkeypatch.setattr(losses, "WHOLE_LOGITS", 0)
    monkeypatch.setattr(losses, "CHUNK_TOKENS_ON_CPU", 8 * len(batch["ids"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=5e-6), gradient(), whole)


def test_log_odds_are_right_and_finite_from_certain_to_impossible():
    logps = np.float32([-1e-6, -1e-4, -0.01, -0.5, -np.log(2), -0.7, -3, -17, -90, -1e4])
    values, slopes = jax.vmap(jax.value_and_grad(losses.log_odds))(logps)
    exact = logps.astype(np.float64)
    np.testing.assert_allclose(values, exact - np.log(-np.expm1(exact)), rtol=1e-6, atol=2e-7)
    np.testing.assert_allclose(slopes, -1 / np.expm1(exact), rtol=1e-5)
    values, slopes = jax.vmap(jax.value_and_grad(losses.log_odds))(np.float32([0, -0.0, -1e-30, -1e-8]))
    assert ((values > 15.9) & (values < 16)).all() and (slopes > 1e6).all() and np.isfinite(slopes).all()


@pytest.mark.parametrize("chosen, rejected", [(0, 0), (0, -1e4), (-1e4, 0), (-1e4, -1e4)])
def test_the_odds_ratio_of_extreme_completions_has_a_value_and_a_gradient(model, monkeypatch, chosen, rejected):
    batch = packed([Pair([3, 4], [5, 6], [7, 8, 9])])
    by_segment = jnp.asarray([0.0, chosen, rejected])[batch["segments"]]

    def sums(shift):
        monkeypatch.setattr(losses, "next_token_logps", lambda *_, **__: by_segment + shift)
        return losses.ORPOLoss(0.5).sums(model, batch)[1]

    value, gradient = jax.value_and_grad(sums)(jnp.zeros(by_segment.shape))
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert value == pytest.approx({0: 0.5 * np.log(2)}.get(chosen - rejected, max(0, rejected - chosen) / 2), rel=5e-3)


def test_nothing_but_padding_changes_nothing(model, mesh):
    empty = setup.to_devices(jax.tree.map(np.zeros_like, packed(pairs(3))), mesh, 1)
    config = dataclasses.replace(TRAIN, weight_decay=0.0)
    for loss in (LOSSES["orpo_trl"], LOSSES["dpo"]):
        training = setup.set_up(config, model, loss, optax.constant_schedule(1.0), mesh)
        moved, _, metrics = training.step(*training.place(model), empty, jax.random.key(0), 0)
        assert_equal(moved, model)
        assert {name: float(value) for name, value in metrics.items()} == dict(loss=0, grad_norm=0, supervised=0)


def train(model, directory, mesh, *, progress=None, loss=LOSSES["dpo"], dev=6, **changes):
    config = dataclasses.replace(TRAIN, row_length=ROW, **changes)
    sets = [batches.pack_pairs(made, ROW) for made in (pairs(24), pairs(dev, seed=1))]
    if isinstance(loss, losses.DPOLoss):
        sets = [loop.with_reference(config, model, made, mesh) for made in sets]
    return loop.train(config, model, loss, *sets, directory, mesh, progress)


def test_the_reference_is_the_start_model_so_that_dpo_begins_at_log_2_and_learns(model, mesh, tmp_path):
    train(model, tmp_path, mesh, steps=30, eval_every=30, learning_rate=3e-2)
    found = rows(tmp_path)
    assert found[0]["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert found[0]["supervised"] > TRAIN.batch_rows
    assert np.mean([row["loss"] for row in found[-6:-1]]) < 0.3


def test_reference_log_probabilities_are_those_of_each_completion(model, mesh):
    made = pairs(5)
    batch = loop.with_reference(dataclasses.replace(TRAIN, row_length=ROW), model, batches.pack_pairs(made, ROW), mesh)
    found = batch.arrays["reference_logps"][batch.arrays["pair_weights"] > 0]
    alone = [[logps_alone(model, p.prompt, text) for text in (p.chosen, p.rejected)] for p in made]
    wanted = {tuple(logps[mask].sum().round(3) for logps, mask in two) for two in alone}
    assert {tuple(two.round(3)) for two in found.astype(np.float64)} == wanted
    assert (batch.arrays["reference_logps"][batch.arrays["pair_weights"] == 0] == 0).all()


def test_dpo_without_a_reference_says_so(model):
    batch = batches.pack_pairs(pairs(2), ROW).arrays
    with pytest.raises(ValueError, match=r"without the reference's log-probabilities: .*loop\.with_reference"):
        losses.DPOLoss().sums(model, batch)


def test_microbatches_do_not_change_the_step(model, mesh, tmp_path):
    # Rows differ in pairs and in tokens, and the two terms in what they are divided by.
    run = functools.partial(train, model, mesh=mesh, dev=0, steps=3, loss=LOSSES["orpo"])
    run(directory=tmp_path / "a")
    run(directory=tmp_path / "b", accumulate=4)
    for a, b in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
        assert a["supervised"] == b["supervised"]
        np.testing.assert_allclose([a["loss"], a["grad_norm"]], [b["loss"], b["grad_norm"]], rtol=1e-5)


def test_rows_of_another_length_are_an_error(model, mesh, tmp_path):
    made = batches.pack_pairs(pairs(4), ROW)
    with pytest.raises(ValueError, match=r"dev rows have 40 tokens and config.row_length=32: pack them"):
        config = dataclasses.replace(TRAIN, row_length=ROW)
        loop.train(config, model, LOSSES["orpo"], made, batches.pack_pairs([], 40), tmp_path, mesh)


def test_killed_and_resumed_dpo_equals_unbroken_bit_for_bit(model, mesh, tmp_path):
    unbroken = train(model, tmp_path / "unbroken", mesh, patience=100)
    killed = own_process.run(KILLED, tmp_path / "killed", 7, "test_preference_losses")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert len(rows(tmp_path / "killed")) < len(rows(tmp_path / "unbroken"))
    resumed = train(model, tmp_path / "killed", mesh, patience=100)
    assert_equal(resumed.model, unbroken.model)
    assert (tmp_path / "killed" / "steps.jsonl").read_bytes() == (tmp_path / "unbroken" / "steps.jsonl").read_bytes()
