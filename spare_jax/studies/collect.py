"""The cells of a study: what one of them is, and all of them in one file.

    python -m spare_jax.studies.collect docs/results/annotation.json WORKDIR...

Every work directory's metrics.json becomes one entry of "cells", in the order given.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spare_jax.jsonlines import StoreError, read_json, write_json

if TYPE_CHECKING:
    from spare_jax.run import Run


def cell(run: "Run", settings: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """metrics.json of one run of a study: what was measured, behind what it was measured on."""
    return {
        "world": run.config.task,
        "seed": run.config.seed,
        "models": {role: run.config.models[role].path for role in ("generator", "judge")},
        "settings": settings,
        **measured,
    }


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
