"""Shardings on eight fake devices: parameters, moments and loaded weights are born in their places."""

import pathlib

import jax
import own_process
import pytest

from spare_jax.models import sharding

SCRIPT = pathlib.Path(__file__).parent / "eight_devices.py"


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return own_process.printed(SCRIPT, tmp_path_factory.mktemp("model"), devices=8)


def test_parameters_are_born_sharded_and_the_layer_axis_is_not_split(seen):
    assert seen["query"] == [[None, "fsdp", "tensor"], [2, 32, 32], [2, 16, 16]]
    assert seen["embed"] == ["tensor", "fsdp"]
    assert seen["structure"]


def test_moments_are_born_like_their_parameters(seen):
    assert seen["moment"] == [[None, "fsdp", "tensor"], [2, 16, 16]]
    assert seen["count"] == []


def test_loading_with_a_mesh_places_the_same_weights_alike(seen):
    assert seen["loaded_equal"] and seen["loaded_shardings"]


def test_training_on_the_mesh_agrees_with_one_device_and_compiles_once(seen):
    assert seen["batch_shard"] == [2, 140]
    assert seen["losses"][0] == pytest.approx(seen["one_device_loss"], abs=1e-4)
    assert seen["losses"][2] < seen["losses"][0]
    assert seen["compiled"] == 1
    assert seen["still_sharded"] == [None, "fsdp", "tensor"]


def test_errors_name_the_param_and_the_axis(seen):
    assert "both map to mesh axis 'tensor'" in seen["one_axis_twice"]
    assert "param embed" in seen["not_divisible"]
    assert "size 63" in seen["not_divisible"] and "tensor=2" in seen["not_divisible"]
    assert "needs 6 devices and there are 8" in seen["wrong_product"]


def test_a_mesh_of_one_device():
    mesh = sharding.make_mesh(1, 1, 1)
    assert mesh.axis_types == (jax.sharding.AxisType.Auto,) * 3
    with pytest.raises(ValueError, match="needs 2 devices and there are 1"):
        sharding.make_mesh(2, 1, 1)


def test_rules_refuse_two_axes_on_one_mesh_axis():
    with pytest.raises(ValueError, match="param head: logical axes 'embed' and 'vocab' both map to mesh axis 'fsdp'"):
        sharding.ShardingRules(vocab="fsdp").spec(("embed", "vocab"), "head")
    assert sharding.ShardingRules().spec(("layers", "embed"), "x") == jax.sharding.PartitionSpec(None, "fsdp")
