"""The kernels of TPUs, interpreted, against what XLA computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spare_jax.models import kernels
from spare_jax.models.attention import PartialAttention, attend_pages, no_attention, packed_attention
from spare_jax.models.cache import KEY_BLOCK, Pages


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("reach", [None, 100])
def test_splash_attention_and_its_gradient(reach):
    q, k, v = normal(0, 2, 256, 2, 3, 128), normal(1, 2, 256, 2, 128), normal(2, 2, 256, 2, 128)
    segments = jnp.array([[1] * 100 + [2] * 90 + [0] * 66, [1] * 256])
    weights = normal(3, 2, 256, 768) * (segments > 0)[..., None]
    window = None if reach is None else jnp.int32(reach)

    def ours(q, k, v):
        return (packed_attention(q, k, v, segments, window, reach) * weights).sum()

    def splash(q, k, v):
        return (kernels.splash_attention(q, k, v, segments, reach, interpret=True) * weights).sum()

    assert kernels.can_splash(q, window, reach)
    expected = packed_attention(q, k, v, segments, window, reach)
    found = kernels.splash_attention(q, k, v, segments, reach, interpret=True)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    for a, b in zip(jax.grad(ours, (0, 1, 2))(q, k, v), jax.grad(splash, (0, 1, 2))(q, k, v), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("window", [None, 90])
def test_pages(window):
    batch, kv_heads, rows, head_dim = 3, 2, 6, 128
    q = normal(0, batch, kv_heads, rows, head_dim) * head_dim**-0.5
    pool = Pages(
        normal(1, 9, 2, kv_heads, head_dim, KEY_BLOCK),
        normal(2, 9, 2, kv_heads, KEY_BLOCK, head_dim),
        jnp.zeros((9, 4)),
    )
    page_table = jnp.array([[3, 8, 1, 0], [5, 99, 99, 99], [2, 2, 7, 6]])  # 99: no page
    first, end = jnp.array([0, 1, 2]), jnp.array([2 * KEY_BLOCK + 40, KEY_BLOCK + 6, 0])
    positions = jnp.array([[300, 300, 320, 320, 370, 370], [200] * 6, [900] * 6])
    before = PartialAttention(normal(3, batch, kv_heads, rows), jnp.ones((batch, kv_heads, rows)), normal(4, *q.shape))
    for partial, used in ((before, 4), (before, 0), (no_attention(q), 3)):
        given = partial, q, pool, jnp.int32(1), page_table, first, end, jnp.int32(used), positions, window
        expected = attend_pages(*given)
        found = kernels.attend_pages(*given, interpret=True)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6, rtol=2e-6)
        assert np.isfinite(found.numerator).all()
    unread = jax.tree.map(lambda x: x[2], attend_pages(before, *given[1:]))
    np.testing.assert_array_equal(unread.numerator, before.numerator[2], "the third row reads nothing")
