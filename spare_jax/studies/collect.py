"""The cells of a study: what one of them is, and all of them in one file.

    python -m spare_jax.studies.collect docs/results/annotation.json WORKDIR...

Every work directory's metrics.json becomes one entry of "cells", in the order given.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spare_jax.storage.jsonlines import StoreError, read_json, write_json

if TYPE_CHECKING:
    from spare_jax.runs.run import Run


def cell(run: "Run", settings: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """metrics.json of one run of a study: what was measured, behind what it was measured on."""
    return {
        "world": run.config.task,
        "seed": run.config.seed,
        "models": {role: run.config.models[role].path for role in ("generator", "judge")},
        "settings": settings,
        **measured,
    }


def write_cell(run: "Run", directory: str, keys: Sequence[str], measured: Mapping[str, Any]) -> list[str]:
    """Write a cell of several that share a work directory: for good below its `directory`, and as the metrics.json of
    the whole, which is that of the cell that ran last; returns the names. Its settings are `keys` of the config."""
    content = cell(run, {key: run.config[key].to_dict() for key in keys}, measured)
    written = [f"{directory}/metrics.json", "metrics.json"]
    for path in written:
        run.work.write_json(path, content)
    return written


def main(arguments: Sequence[str]) -> None:
    """Write the file; a work directory without metrics.json ends it with one clear line."""
    if len(arguments) < 2:
        sys.exit("error: name the file to write and one or more work directories")
    target, *directories = map(Path, arguments)
    try:
        write_json(target, {"cells": [read_json(directory / "metrics.json") for directory in directories]})
    except StoreError as error:
        sys.exit(f"error: {error}")
    print(f"{target}: {len(directories)} cells")


if __name__ == "__main__":
    main(sys.argv[1:])
