"""The cells of a study: metrics.json of one run, or of a part of one."""

from collections.abc import Mapping, Sequence
from typing import Any

from spare_jax.runs.run import Run


def cell(run: Run, settings: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """metrics.json of one run of a study: what was measured, behind what it was measured on."""
    return {
        "world": run.config.task,
        "seed": run.config.seed,
        "models": {role: run.config.models[role].path for role in ("generator", "judge")},
        "settings": settings,
        **measured,
    }


def write_cell(run: Run, directory: str, keys: Sequence[str], measured: Mapping[str, Any]) -> list[str]:
    """Write a cell of several that share a work directory: for good below its `directory`, and as the metrics.json of
    the whole, which is that of the cell that ran last; returns the names. Its settings are `keys` of the config."""
    content = cell(run, {key: run.config[key].to_dict() for key in keys}, measured)
    written = [f"{directory}/metrics.json", "metrics.json"]
    for path in written:
        run.work.write_json(path, content)
    return written
