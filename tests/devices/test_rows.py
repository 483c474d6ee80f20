"""Rows on a mesh: what shares them out, and what a device's own are. Nothing is run, so the mesh needs no devices."""

import contextlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from spare_jax.models import config, decoder, sharding
from spare_jax.models.rows import ROW_AXES, by_rows, row_axes, row_shares
from spare_jax.training import losses

CONFIG = config.DecoderConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4
)


def on_mesh(data: int, fsdp: int, tensor: int):
    mesh = AbstractMesh((data, fsdp, tensor), sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 3)
    return jax.sharding.use_abstract_mesh(mesh)


def equations(function, *arguments) -> list:
    return jax.make_jaxpr(function)(*arguments).jaxpr.eqns


def test_rows_are_shared_out_where_they_divide():
    with on_mesh(2, 4, 2):
        assert (row_axes(16), row_shares(16)) == (ROW_AXES, 8)
        assert (row_axes(12), row_shares(12)) == (None, 1)
    assert (row_axes(16), row_shares(16)) == (None, 1)


def test_rows_alone_are_held():
    with on_mesh(2, 4, 2):
        (held,) = equations(by_rows, jnp.zeros((8, 3, 4)))
        assert held.params["sharding"].spec == PartitionSpec(ROW_AXES) and not held.params["unconstrained_dims"]
        assert equations(by_rows, jnp.zeros((12, 3, 4))) == []
    assert equations(by_rows, jnp.zeros((8, 3, 4))) == []


@pytest.mark.parametrize("mesh,chunks", [(None, 8), ((1, 1, 8), 8), ((2, 1, 1), 4), ((1, 8, 1), 1), ((1, 16, 1), 4)])
def test_chunks_of_logits_count_the_tokens_of_a_device(mesh, chunks, monkeypatch):
    """8 rows of 16 tokens, 16 tokens a chunk, 32 over fsdp; 16 shares do not divide 8 rows."""
    monkeypatch.setattr(losses, "WHOLE_LOGITS", 0)
    monkeypatch.setattr(losses, "CHUNK_TOKENS_ON_CPU", 16)
    monkeypatch.setattr(losses, "CHUNK_TOKENS", 32)
    model = jax.eval_shape(lambda: decoder.init_decoder(CONFIG, jax.random.key(0)))
    batch = dict.fromkeys(("ids", "positions", "segments", "loss_weights"), jax.ShapeDtypeStruct((8, 16), jnp.int32))
    with on_mesh(*mesh) if mesh else contextlib.nullcontext():
        *_, scan = (one for one in equations(losses.token_logps, model, batch) if one.primitive.name == "scan")
    assert scan.params["length"] == chunks
