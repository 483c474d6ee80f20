"""The notebooks run from their first cell to the last, in small, as a reader would run them."""

import nbclient
import nbformat
import pytest
from tests_config import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_results(path):
    code = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.parametrize(
    ("name", "workdirs", "shown"),
    [
        (
            "prm",
            ["prm_small", "annotate"],
            {"figures": "PRM minus majority", "report": "<iframe", "annotate": "<iframe"},
        ),
        (
            "spark",
            ["spark_small"],
            {
                "labels": "| step_consistency |",
                "verifiers": "| prm_cot |",
                "rl": "| sound |",
                "look": "Is the answer correct (Yes/No)?",
            },
        ),
    ],
)
def test_a_notebook_runs(name, workdirs, shown, tmp_path):
    notebook = nbformat.read(ROOT / f"notebooks/{name}.ipynb", 4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("SMALL = False", "SMALL = True")
    for needed in ("configs", "docs"):
        (tmp_path / needed).symlink_to(ROOT / needed)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises where a cell does
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(workdirs)
    printed = {cell.id: str(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"}
    for cell, text in shown.items():
        assert text in printed[cell]
