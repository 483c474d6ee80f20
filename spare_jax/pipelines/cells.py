"""The cells of a study: metrics.json of one run, or of a part of one."""

from collections.abc import Mapping
from typing import Any

from spare_jax.runs.models import WithJudge
from spare_jax.runs.run import Run
from spare_jax.runs.settings import listed


def cell(run: Run, models: WithJudge, settings: Any, measured: Mapping[str, Any]) -> dict[str, Any]:
    """metrics.json of one run of a study: what was measured, behind what it was measured on."""
    return {
        "world": run.task.name,
        "seed": run.seed,
        "models": {"generator": models.generator.path, "judge": models.judge.path},
        "settings": listed(settings),
        **measured,
    }


def write_cell(
    run: Run, directory: str, models: WithJudge, settings: Mapping[str, Any], measured: Mapping[str, Any]
) -> list[str]:
    """Write a cell of several that share a work directory: for good below its `directory`, and as the metrics.json of
    the whole, which is that of the cell that ran last; returns the names."""
    content = cell(run, models, settings, measured)
    written = [f"{directory}/metrics.json", "metrics.json"]
    for path in written:
        run.work.write_json(path, content)
    return written
