"""The kernels of GPUs against what XLA computes in float32. Nothing is run where there is no GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spare_jax.models import kernels
from spare_jax.models.attention import packed_attention

pytestmark = pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")


@pytest.mark.parametrize("heads", [(2, 6, 128), (4, 1, 64)])
def test_flash_attention_and_its_gradient(heads):
    kv_heads, group, head_dim = heads
    keys = jax.random.split(jax.random.key(0), 4)
    q = jax.random.normal(keys[0], (2, 256, kv_heads, group, head_dim), jnp.bfloat16)
    k, v = (jax.random.normal(key, (2, 256, kv_heads, head_dim), jnp.bfloat16) for key in keys[1:3])
    segments = jnp.array([[1] * 100 + [2] * 90 + [0] * 66, [1] * 256])
    weights = jax.random.normal(keys[3], (2, 256, kv_heads * group * head_dim)) * (segments > 0)[..., None]
    given = q, k, v
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), given)

    @jax.jit
    def mixed_and_gradients(q, k, v):
        def weighed(q, k, v):
            mixed = packed_attention(q, k, v, segments, None, None)
            return (mixed * weights).sum(), mixed * (segments > 0)[..., None]

        gradients, mixed = jax.grad(weighed, (0, 1, 2), has_aux=True)(q, k, v)
        return mixed, *gradients

    assert kernels.can_flash(q, None) and not kernels.can_flash(exact[0], None)
    with jax.default_matmul_precision("highest"):
        expected = mixed_and_gradients(*exact)
    for a, b in zip(mixed_and_gradients(*given), expected, strict=True):
        assert np.linalg.norm(a.astype(jnp.float32) - b) < 1e-2 * np.linalg.norm(b)
