"""The local engine on eight fake devices answers as on one; in its own process (see engine_on_a_mesh.py)."""

import pathlib

import numpy as np
import own_process
import pytest

SCRIPT = pathlib.Path(__file__).parent / "engine_on_a_mesh.py"


@pytest.fixture(scope="module")
def seen():
    return own_process.printed(SCRIPT, devices=8)


def test_the_mesh_draws_the_same_tokens(seen):
    # float32: a difference would be a draw within rounding of a boundary, which these draws are not.
    for on_mesh, alone in zip(seen["mesh"], seen["alone"], strict=True):
        for (ids, logprobs, scores), (ids_alone, logprobs_alone, scores_alone) in zip(on_mesh, alone, strict=True):
            assert ids == ids_alone
            np.testing.assert_allclose(logprobs, logprobs_alone, atol=1e-4)
            np.testing.assert_allclose(scores, scores_alone, atol=1e-5)


def test_the_cache_is_shared_out_over_all_axes(seen):
    assert seen["share_of_the_cache"] == 8
    assert seen["share_of_the_pages"] == 2, "whole on every share of the slots, but for the heads"


def test_each_function_compiles_once_on_a_mesh(seen):
    assert seen["compiled"] == {"prefill": 2, "write": 2, "score": 1, "insert": 1, "decode": 1}, "two buckets"


def test_lanes_are_refused_on_a_mesh(seen):
    assert "set lanes to 1" in seen["lanes"]
