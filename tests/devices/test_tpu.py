"""The engine and steps of training compile ahead of time for TPU slices, without a TPU; needs libtpu (pip install
libtpu)."""

import importlib.util
import json
import pathlib

import own_process
import pytest
from tests_config import ROOT

SCRIPT = pathlib.Path(__file__).parent / "engine_for_tpu.py"
HERE = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
GIB = 2**30

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed: pip install libtpu"),
]


@pytest.fixture(scope="module")
def compiled():
    return own_process.printed(SCRIPT, "v5e:4x2", **HERE)


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Steps of training by name, on a slice of 16 chips."""
    file = tmp_path_factory.mktemp("steps") / "steps.json"
    done = own_process.run(ROOT / "benchmarks/tpu_training.py", "--steps=prm,orpo", f"--json={file}", **HERE)
    assert done.returncode == 0, done.stderr[-3000:]
    return {step["step"]: step for step in json.loads(file.read_text())["steps"]}


def test_an_8b_model_and_its_cache_fit_a_chip(compiled):
    for name, memory in compiled.items():
        assert memory["arguments"] + memory["temporaries"] < 15 * GIB, name


def test_attention_is_in_kernels(compiled):
    assert compiled["decode"]["kernels"] == ["attend_pages"]
    assert compiled["gradient"]["kernels"] == ["splash_mha_dkv", "splash_mha_fwd"]


def test_pages_are_written_in_place(compiled):
    assert compiled["write"]["temporaries"] < GIB // 8
    assert compiled["decode"]["temporaries"] < 2 * GIB


def test_no_collective_moves_the_cache(compiled):
    """Prompts and slots stay where they are: what moves are activations, and weights, which fsdp shares out."""
    assert compiled["write"]["largest_collective"] == 0
    assert compiled["prefill"]["largest_collective"] < 2**24
    assert compiled["decode"]["largest_collective"] <= 4096 * 128256 * 2 / 4


def test_steps_of_an_8b_model_fit_a_chip(steps):
    for name, step in steps.items():
        assert step["aliased_bytes"] > 0.99 * step["output_bytes"], name
        assert step["argument_bytes"] + step["temporary_bytes"] < 12 * GIB, name


def test_no_collective_of_a_step_moves_the_whole_batch(steps):
    """Kernels come to the rows. Embeddings alone are read where they lie: an all-to-all brings each chip its rows'."""
    for name, step in steps.items():
        assert step["collectives"] and not step["of_the_whole_batch"], name
