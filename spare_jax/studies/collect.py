"""Collects the cells of a study in one file.

    python -m spare_jax.studies.collect docs/results/annotation.json WORKDIR...

Every work directory's metrics.json becomes one entry of "cells", in the order given.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from spare_jax.storage.jsonlines import StoreError, read_json, write_json


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
