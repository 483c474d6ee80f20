"""The comparison of two trees' results: what differs is named, what was measured is not compared."""

import json

import pytest
import same_bytes

FILES = {
    "main_job/run/metrics.json": json.dumps({"accuracy": 0.5, "study": {"seconds_per_solution": {"spare": 0.1}}}),
    "main_job/run/solutions.jsonl": '{"id": "a"}\n',
    "main_job/run/report.html": "<td>0.50</td><td>1,200.5\u202fs</td>",
    "main_job/run/prm/export/config.json": "{}",
    "main_job/run/prm/export/model.safetensors": "weights",
    "main_job/run/judgements/spare.seconds.json": '{"seconds": 1.5}',
    "main_job/run/config.json": '{"seed": 0}',
    "main_job/run/runs/1.json": "{}",
    "main_job/run/manifests/solve.json": "{}",
    "main_job/run/prm/checkpoints/latest/3/state/d/1f": "arrays",
}


@pytest.fixture
def made(tmp_path):
    for side in ("before", "after"):
        for name, content in FILES.items():
            (tmp_path / side / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / side / name).write_text(content)
    return tmp_path


def compared(made, capsys):
    """The exit status of `compare`, and what it prints."""
    with pytest.raises(SystemExit) as ended:
        same_bytes.main(["compare", str(made / "before"), str(made / "after")])
    return ended.value.code, capsys.readouterr().out.splitlines()


def test_what_was_measured_is_not_compared(made, capsys):
    work = made / "after/main_job/run"
    for name in (
        "config.json",
        "runs/1.json",
        "manifests/solve.json",
        "prm/checkpoints/latest/3/state/d/1f",
        "judgements/spare.seconds.json",
    ):
        (work / name).write_text("other")
    (work / "report.html").write_text(FILES["main_job/run/report.html"].replace("1,200.5", "3.0"))
    (work / "metrics.json").write_text(FILES["main_job/run/metrics.json"].replace("0.1", "0.2"))
    status, lines = compared(made, capsys)
    assert status == 0 and len(lines) == 3 and lines[-1].startswith("| main_job | 5 | 0 | ")


@pytest.mark.parametrize("name", list(FILES)[:5])
def test_a_changed_byte_is_reported(made, capsys, name):
    changed = made / "after" / name
    changed.write_text(changed.read_text().replace("5", "6", 1) if "5" in FILES[name] else FILES[name] + " ")
    status, lines = compared(made, capsys)
    assert status == 1 and lines[0] == f"{name}: differs" and lines[-1].startswith("| main_job | 5 | 1 | ")


def test_a_missing_file_is_reported_and_so_is_nothing_at_all(made, capsys):
    (made / "before/main_job/run/solutions.jsonl").unlink()
    status, lines = compared(made, capsys)
    assert status == 1 and lines[0] == f"main_job/run/solutions.jsonl: missing in {made / 'before'}"
    with pytest.raises(FileNotFoundError, match="make them first"):
        same_bytes.compare(made / "nowhere", made / "neither")


def test_what_is_made_is_not_made_over(made, capsys):
    with pytest.raises(SystemExit, match="is there already"):
        same_bytes.main(["make", str(made / "before"), "main_job"])
    with pytest.raises(SystemExit):
        same_bytes.main(["make", str(made / "new"), "nothing"])
    assert "no pipeline nothing: choose among main_job" in capsys.readouterr().err
