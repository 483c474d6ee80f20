"""The doctor says what a model is, and what is wrong with it."""

import json
import shutil
import subprocess
import sys

import pytest
from tests_config import ROOT
from tiny_directory import random_qwen2

from spare_jax import doctor
from spare_jax.judges import conventions
from spare_jax.models import huggingface


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """A reward model of ours: a random Qwen2 with its convention."""
    directory = random_qwen2(tmp_path_factory.mktemp("model"), ["Ada has 5 + 3 = 8 apples. - + the answer is 8."] * 9)
    words = huggingface.load_tokenizer(directory)
    conventions.save_convention(directory, conventions.choose_convention(words, ("<extra_0>",), "min"))
    return directory


def lines_of(report):
    return {line.split()[0]: line for line in report.lines if not line.startswith(" ")}


def test_a_healthy_model_has_no_problem(healthy):
    report = doctor.examine(str(healthy))
    assert report.problems == []
    said, config = lines_of(report), huggingface.load_config(healthy)
    assert "qwen2: 2 layers, hidden 32, 4 heads of 8 (2 key-value)" in said["family"]
    assert f"{doctor._parameters(config):,}" in said["parameters"]
    assert "aggregation min" in said["convention"]
    assert "'<extra_0>' -> [3]" in said["tag"]
    assert "2 solutions, 6 steps, 6 scores" in said["steps"]
    assert len(said["scores"].split()) == 4 and "% to" in said["vocabulary"]


def test_what_is_wrong_is_said_with_its_remedy(healthy, tmp_path):
    def problem(directory=healthy, **given):
        (found,) = doctor.examine(str(directory), **given).problems
        return found

    assert "is no directory: give the local directory" in problem("nowhere")
    assert "convention 'x' is unknown: choose among spare" in problem(convention="x")
    assert "reads a head of kind two_layers" in problem(convention="qwen_math_prm")
    assert "2 of 2 solutions are longer than the context of 20 tokens" in problem(max_length=20)
    (tmp_path / "x.jsonl").write_text(json.dumps({"question": "Q", "solution": ["one", "two"]}) + "\n")
    assert lines_of(doctor.examine(str(healthy), data=str(tmp_path / "x.jsonl")))["steps"].endswith("2 steps, 2 scores")
    (tmp_path / "y.jsonl").write_text('{"question": "Q"}\n')
    assert "y.jsonl:1: field 'solution' is missing" in problem(data=str(tmp_path / "y.jsonl"))
    (tmp_path / "z.jsonl").write_text("")
    assert "holds no rows" in problem(data=str(tmp_path / "z.jsonl"))

    other = tmp_path / "other"
    shutil.copytree(healthy, other)
    convention = json.loads((other / conventions.CONVENTION_FILE).read_text())
    (other / conventions.CONVENTION_FILE).write_text(json.dumps(convention | {"good_id": 9}))
    assert "names ids 3, 9," in problem(other)


def test_the_command_ends_with_a_status(healthy):
    command = [sys.executable, "-m", "spare_jax.doctor", f"--model={healthy}"]
    good = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (good.returncode, good.stdout.splitlines()[-1]) == (0, "nothing is wrong")
    bad = subprocess.run([*command, "--convention=x"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert bad.stdout.splitlines()[-1].startswith("problem: convention 'x' is unknown")
