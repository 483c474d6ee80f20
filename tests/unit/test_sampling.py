"""Draws follow their distribution, obey their filters, and are a function of their own row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spare_jax.engines.sampling import digest32, invert_cumulative, sample_keys, sample_tokens, token_keys

VOCAB = 11
LOGITS = np.log(np.array([0.30, 0.02, 0.16, 0.05, 0.01, 0.12, 0.08, 0.03, 0.09, 0.04, 0.10], np.float32))
DRAWS = 20000

sample = jax.jit(sample_tokens)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def draw(logits, count=DRAWS, temperature=1.0, top_p=1.0, top_k=0, seed=0):
    """`count` ids from one distribution, with their log-probabilities."""
    ids, logprobs = sample(
        jnp.broadcast_to(logits, (count, len(logits))),
        keys(count, seed),
        jnp.full(count, temperature),
        jnp.full(count, top_p),
        jnp.full(count, top_k),
    )
    return np.asarray(ids), np.asarray(logprobs)


def deviation(ids, probabilities):
    """Pearson's chi-square in standard deviations from its mean; small where the draws follow the probabilities."""
    counts = np.bincount(ids, minlength=len(probabilities))
    assert (counts[probabilities == 0] == 0).all(), "an id of probability 0 was drawn"
    expected = probabilities[probabilities > 0] * len(ids)
    freedom = max(len(expected) - 1, 1)
    return (((counts[probabilities > 0] - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


def filtered(temperature=1.0, top_p=1.0, top_k=0):
    """The distribution that the filters leave, in numpy: sort, cut after k, cut where the mass reaches top_p."""
    p = np.exp(LOGITS.astype(np.float64) / temperature)
    order = np.argsort(-p)
    kept = order[: top_k or len(p)]
    mass = np.cumsum(p[kept]) / p[kept].sum()
    kept = kept[: 1 + np.searchsorted(mass, top_p - 1e-9)]
    result = np.zeros_like(p)
    result[kept] = p[kept]
    return result / result.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_draws_follow_the_tempered_probabilities(temperature):
    ids, _ = draw(LOGITS, temperature=temperature)
    assert deviation(ids, filtered(temperature)) < 4
    assert deviation(ids, filtered(temperature * 1.2)) > 10  # the test can tell


@pytest.mark.parametrize(
    "top_p, top_k", [(0.3, 0), (0.5, 0), (0.79, 0), (0.99, 0), (1.0, 1), (1.0, 4), (0.7, 5), (1.0, 99)]
)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_filters_against_numpy(temperature, top_p, top_k):
    ids, _ = draw(LOGITS, temperature=temperature, top_p=top_p, top_k=top_k)
    assert deviation(ids, filtered(temperature, top_p, top_k)) < 4


def test_logprobs_are_at_temperature_one_without_filters():
    expected = LOGITS - np.log(np.exp(LOGITS).sum())
    for options in ({}, {"temperature": 0.3}, {"temperature": 0.0}, {"top_p": 0.5, "top_k": 3}):
        ids, logprobs = draw(LOGITS, count=50, **options)
        np.testing.assert_allclose(logprobs, expected[ids], atol=1e-6)


def test_temperature_zero_is_argmax_and_takes_the_lowest_of_equals():
    logits = jax.random.normal(jax.random.key(3), (40, VOCAB)).at[:, 5].set(9.0).at[::2, 8].set(9.0)
    ids, _ = sample(logits, keys(40), jnp.zeros(40), jnp.ones(40), jnp.zeros(40, int))
    np.testing.assert_array_equal(ids, 5)


def test_top_k_one_and_tiny_top_p_are_greedy():
    logits = jax.random.normal(jax.random.key(3), (300, VOCAB)).at[::3, 4:6].set(9.0)
    greedy = logits.argmax(axis=1)
    ones = jnp.ones(300)
    np.testing.assert_array_equal(sample(logits, keys(300), ones, ones, jnp.ones(300, int))[0], greedy)
    np.testing.assert_array_equal(sample(logits, keys(300), ones, ones * 1e-30, jnp.zeros(300, int))[0], greedy)


def test_equal_logits_are_cut_to_exactly_k_and_p():
    for options in ({"top_k": 3}, {"top_p": 3 / VOCAB - 1e-3}):
        ids, _ = draw(np.zeros(VOCAB, np.float32), **options)
        np.testing.assert_array_equal(np.unique(ids), [0, 1, 2])


def test_extreme_logits_and_temperatures():
    masked = np.where(np.arange(VOCAB) < 3, 0.0, -np.inf).astype(np.float32)
    for options in ({}, {"top_p": 0.9}, {"top_k": 7}):
        ids, logprobs = draw(masked, **options)
        np.testing.assert_array_equal(np.unique(ids), [0, 1, 2])
        np.testing.assert_allclose(logprobs, -np.log(3), atol=1e-6)
    ids, logprobs = draw(LOGITS * 1e4, temperature=1e-30, top_p=0.9)
    np.testing.assert_array_equal(ids, 0)
    assert np.isfinite(logprobs).all()


def test_values_of_the_settings_are_traced():
    before = sample._cache_size()
    draw(LOGITS, count=7)
    draw(LOGITS, count=7, temperature=0.1, top_p=0.2, top_k=3)
    assert sample._cache_size() == before + 1


def test_a_row_does_not_depend_on_the_other_rows():
    """Bit for bit, also when another row wants a filter and this one does not."""
    rows = 64
    logits = jax.random.normal(jax.random.key(5), (rows, 512)) * 3
    row_keys, ones, off = keys(rows), jnp.ones(rows), jnp.zeros(rows, int)
    ids, logprobs = sample(logits, row_keys, ones, ones, off)

    others = jnp.arange(rows) != 17
    mixed_ids, mixed_logprobs = sample(
        jnp.where(others[:, None], 1.0 - logits, logits),
        jnp.where(others, row_keys[::-1], row_keys),
        jnp.where(others, 0.7, 1.0),
        jnp.where(others, 0.5, 1.0),
        jnp.where(others, 1, 0),
    )
    np.testing.assert_array_equal(mixed_ids[others], logits.argmin(axis=1)[others])
    assert ids[17] == mixed_ids[17] and logprobs[17] == mixed_logprobs[17]

    moved = jnp.roll(jnp.arange(rows), 23)
    rolled_ids, rolled_logprobs = sample(logits[moved], row_keys[moved], ones, ones, off)
    np.testing.assert_array_equal(rolled_ids, ids[moved])
    np.testing.assert_array_equal(rolled_logprobs, logprobs[moved])


@pytest.mark.parametrize("vocab", [1, 2, 13, 64, 100])
def test_inverse_cumulative_covers_each_id_in_proportion(vocab):
    weights = np.random.default_rng(vocab).random(vocab).astype(np.float32)
    weights[vocab // 3] = 1.0 if vocab == 1 else 0.0
    grid = jnp.arange(4096) / 4096
    ids = np.asarray(invert_cumulative(jnp.broadcast_to(weights, (4096, vocab)), grid))
    share = np.bincount(ids, minlength=vocab) / 4096
    np.testing.assert_allclose(share, weights / weights.sum(), atol=2 / 4096)


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(np.float32(1), np.float32(0))])
def test_weights_of_zero_are_never_drawn_at_the_ends_of_the_unit_interval(uniform):
    """Where the rounding of partial sums could step over the last weight that is not zero."""
    rng = np.random.default_rng(0)
    weights = rng.random((4096, 50)).astype(np.float32) * (rng.random((4096, 50)) < 0.2)
    weights[:, 25] += 1e-12
    ids = invert_cumulative(jnp.asarray(weights), jnp.full(4096, uniform))
    assert (weights[np.arange(4096), np.asarray(ids)] > 0).all()


def test_keys_differ_by_seed_request_sample_and_token():
    digests = jnp.array([digest32("a/0/0"), digest32("a/0/1")], jnp.uint32)
    made = []
    for seed in (0, 1):
        for k in (0, 1):
            per_sample = sample_keys(jax.random.key(seed), digests, jnp.array([k, k]))
            made += [jax.random.key_data(token_keys(per_sample, jnp.array([t, t]))) for t in (0, 1)]
    assert len({tuple(row) for data in made for row in np.asarray(data).tolist()}) == 16


def test_digest_is_fixed():
    # A change of these would change every record that was ever drawn.
    assert digest32("problem-0/0/0") == 3488191780
