"""Real data sets for tests: folders of the directory that SPARE_JAX_DATA names (CONTRIBUTING.md)."""

import os
from pathlib import Path

import pytest


def folder(name: str) -> Path:
    """The folder of a data set; skips the test where there is none."""
    data = os.environ.get("SPARE_JAX_DATA")
    if not data or not (Path(data) / name).exists():
        pytest.skip(f"SPARE_JAX_DATA names no folder that holds {name}")
    return Path(data) / name
