"""The engine compiles ahead of time for a TPU slice, without a TPU; needs libtpu (pip install libtpu)."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).parent
GIB = 2**30

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed: pip install libtpu"),
]


@pytest.fixture(scope="module")
def compiled():
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(TESTS / "engine_for_tpu.py"), "v5e:4x2"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_an_8b_model_and_its_cache_fit_a_chip(compiled):
    for name, memory in compiled.items():
        assert memory["arguments"] + memory["temporaries"] < 15 * GIB, name


def test_attention_is_in_kernels(compiled):
    assert compiled["decode"]["kernels"] == ["see_pages"]
    assert compiled["gradient"]["kernels"] == ["splash_mha_dkv", "splash_mha_fwd"]


def test_pages_are_written_in_place(compiled):
    assert compiled["store"]["temporaries"] < GIB // 8
    assert compiled["decode"]["temporaries"] < 2 * GIB


def test_no_collective_moves_the_cache(compiled):
    """Prompts and slots stay where they are: what moves are activations, and weights, which fsdp shares out."""
    assert compiled["store"]["largest_collective"] == 0
    assert compiled["extend"]["largest_collective"] < 2**24
    assert compiled["decode"]["largest_collective"] <= 4096 * 128256 * 2 / 4
