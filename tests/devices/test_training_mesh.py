"""The same run on one device and on eight laid out in three ways; in its own process (see training_on_meshes.py)."""

import pathlib

import numpy as np
import own_process
import pytest

from spare_jax.training import optimizer

SCRIPT = pathlib.Path(__file__).parent / "training_on_meshes.py"
MESHES = ("1x1x1", "8x1x1", "1x8x1", "2x2x2")


@pytest.fixture(scope="module", params=(*optimizer.OPTIMIZERS, "adapters", "sft", "orpo", "dpo"))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def seen(kind, tmp_path_factory):
    return own_process.printed(SCRIPT, tmp_path_factory.mktemp(kind), kind, devices=8)


@pytest.mark.parametrize("mesh", MESHES[1:])
def test_the_loss_curve_does_not_depend_on_the_mesh(seen, mesh):
    expected = seen["1x1x1"]["losses"]
    assert len(expected) == 8 and len(set(expected)) == 8
    np.testing.assert_allclose(seen[mesh]["losses"], expected, atol=1e-5)


@pytest.mark.parametrize("mesh", MESHES)
def test_moments_lie_as_their_parameters(seen, mesh):
    assert seen[mesh]["misplaced"] == []


def test_moments_are_split(seen, kind):
    shapes = [seen[mesh]["query_moment"] for mesh in MESHES]
    if kind == "adapters":
        assert shapes == [[2, 16, 4], [2, 16, 4], [2, 2, 4], [2, 8, 4]]
    else:
        assert shapes == [[2, 16, 16], [2, 16, 16], [2, 2, 16], [2, 8, 8]]


@pytest.mark.parametrize("mesh", MESHES)
def test_the_step_compiles_once(seen, mesh):
    assert seen[mesh]["compiled"] == 1


@pytest.mark.parametrize("mesh", MESHES[1:])
def test_no_collective_moves_the_whole_batch(seen, mesh):
    """Parameters are gathered, all of them smaller than the hidden states of a microbatch: 8 rows of 16 tokens of 16
    numbers. Those stay where their rows are."""
    assert 0 < seen[mesh]["largest_collective"] < 4 * 8 * 16 * 16
