"""The main job's seeds: what is kept of a run, what is not run again, and the table."""

import json
import subprocess

import pytest

from spare_jax import assets
from spare_jax.storage.jsonlines import digest
from spare_jax.studies import main_job, main_job_tables

FIGURES = {
    "step_accuracy": 0.95, "error_precision": 0.9, "error_recall": 0.91, "wrong_reference_drop": 0.2,
    "explanation_agreement": 0.995, "reference_right": 1.0, "parse_failure_rate": 0.0, "missed_step_rate": 0.0,
}  # fmt: skip
GAIN = {"mean": 0.08, "low": 0.05, "high": 0.11, "p": 0.001}


def metrics(seed):
    return {
        "seed": seed,
        "policy": {"pass_at_1": 0.6},
        "judges": {"spare": FIGURES | {"kappa": 0.8}},
        "selection": {
            "majority": 0.7,
            "oracle": 0.9,
            "prm": {"weighted": {"last": 0.78}},
            "prm_minus_majority": GAIN,
            "prm_minus_orm": GAIN,
        },
        "prm": {"judge": {"f1": 0.8}},
    }


@pytest.fixture
def ran(monkeypatch):
    """The commands that were run; each writes the metrics of its seed."""
    commands = []

    def run(command, check):
        commands.append(command)
        options = dict(part.lstrip("-").split("=", 1) for part in command[3:])
        if options["config.seed"] == "13":
            raise subprocess.CalledProcessError(1, command)
        directory = main_job.Path(options["workdir"])
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "metrics.json").write_text(json.dumps(metrics(int(options["config.seed"]))))

    monkeypatch.setattr(main_job.subprocess, "run", run)
    return commands


def test_a_seed_is_run_once_and_a_failure_keeps_what_is_done(tmp_path, ran):
    target, work = tmp_path / "rows.json", tmp_path / "work"
    with pytest.raises(SystemExit, match="run the same command again"):
        main_job.main([str(target), str(work), "11", "13", "12"])
    (work / "12").mkdir()  # begun before: its seconds would not be the whole run's
    main_job.main([str(target), str(work), "11", "12"])
    assert [command[4] for command in ran] == [f"--config.seed={seed}" for seed in (11, 13, 12)]
    found = json.loads(target.read_text())
    assert found["teacher"] == digest(assets.directory("tiny-teacher") / "model.safetensors")
    assert [row["seed"] for row in found["rows"]] == [11, 12]
    assert found["rows"][0]["seconds"] is not None and found["rows"][1]["seconds"] is None
    assert found["rows"][0]["prm_minus_majority"] == {"mean": 0.08, "low": 0.05, "high": 0.11}
    with pytest.raises(SystemExit, match=r"rows are of config configs/prm_math\.py, not of other\.py"):
        main_job.main([str(target), str(work), "11", "--config=other.py"])


def test_the_table_says_how_many_seeds_meet_each_bar():
    rows = [main_job.row(metrics(seed), 300.0) for seed in (1, 2, 3)]
    rows[1] |= {"step_accuracy": 0.9, "prm_minus_majority": {"mean": 0.06, "low": -0.01, "high": 0.1}}
    rows[2] |= {"seconds": None, "reference_right": None}
    shown = main_job_tables.tables({"config": "c", "teacher": "d", "rows": rows})
    assert shown.startswith("`c`, annotator of digest d. 1 of 3 seeds meet all")
    cells = {line.split(" | ")[0]: line.strip("| ").split(" | ")[1:] for line in shown.splitlines() if "|" in line}
    head = cells["| seed"]
    met = dict(zip(head, cells["| met by"], strict=False))
    assert met["step accuracy"] == met["seconds"] == met["reference right"] == met["PRM - majority"] == "2 of 3"
    assert met["error recall"] == "3 of 3"
    mean = dict(zip(head, cells["| mean"], strict=True))
    assert mean["step accuracy"] == ".933" and mean["seconds"] == "300" and mean["reference right"] == "1.000"
    assert dict(zip(head, cells["| least"], strict=True))["PRM - majority"] == ".060"
    assert cells["| 3"][head.index("seconds")] == "-"
