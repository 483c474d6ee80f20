"""Killed at a dozen moments, spread over all stages, the main job ends in the same bytes as one that never was."""

import hashlib
import json
import pathlib
import signal

import own_process
import pytest

pytestmark = pytest.mark.optimized

SCRIPT = pathlib.Path(__file__).parent / "killed_run.py"

# In the order in which a run meets them: each start gets a little further than the last.
MOMENTS = [
    ("before:problems.jsonl", 1),
    ("put:solve.journal.jsonl", 5),
    ("torn:solve.journal.jsonl", 3),
    ("before:solutions.jsonl", 1),
    ("complete:solve", 1),
    ("after:outcome.jsonl", 1),
    ("put:judge.spare.journal.jsonl", 7),
    ("torn:judge.spare.journal.jsonl", 2),
    ("after:spare.jsonl", 1),
    ("fetch", 2),
    ("save", 1),
    ("complete:train_prm", 1),
    ("put:rank.prm.journal.jsonl", 4),
    ("torn:rank.orm.journal.jsonl", 2),
    ("before:metrics.json", 1),
]
TO_THE_END = ("never", 1)


def start(workdir, *moments):
    """Runs the job once per moment, on the devices into which the job itself splits a CPU; the exit statuses."""
    return own_process.printed(SCRIPT, workdir, *(f"{event}/{count}" for event, count in moments), XLA_FLAGS="")


def digests(workdir):
    """Of every record file, the training rows, the exported models and the metrics."""
    kept = [p for p in sorted(workdir.rglob("*")) if p.suffix in (".jsonl", ".safetensors") or p.name == "metrics.json"]
    return {str(p.relative_to(workdir)): hashlib.blake2b(p.read_bytes()).hexdigest() for p in kept}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    assert start(workdir, TO_THE_END) == [0]
    return workdir


def test_killed_again_and_again(unbroken, tmp_path):
    assert start(tmp_path, *MOMENTS, TO_THE_END) == [-signal.SIGKILL] * len(MOMENTS) + [0]
    whole = digests(unbroken)
    assert digests(tmp_path) == whole
    assert {"solutions.jsonl", "judgements/spare.jsonl", "trl_stepwise.jsonl", "metrics.json"} <= whole.keys()
    measured = [json.loads(path.read_text()) for path in (unbroken / "runs").glob("*.json")]
    assert {run["devices"] for run in measured} == {2}  # into which the job has split the CPU


def test_a_finished_run_writes_no_record_again(unbroken):
    times = {p: p.stat().st_mtime_ns for p in unbroken.rglob("*.jsonl")}
    assert start(unbroken, TO_THE_END) == [0]
    assert times == {p: p.stat().st_mtime_ns for p in unbroken.rglob("*.jsonl")}
