"""Runs the main job on several seeds, one after another, and archives a row of figures per seed.

    python -m spare_jax.studies.main_job docs/results/main_job.json WORKDIR SEED...
    python -m spare_jax.studies.main_job_tables docs/results/main_job.json > docs/results/main_job_tables.md

A seed is `configs/prm_math.py --config.seed=SEED` with the work directory WORKDIR/SEED, in a process of its own. A seed
whose row is in the file is not run again, and an interrupted one is continued. All rows of a file have the same config
and annotator; the file names the config and the digest of the annotator's weights. Try it in small with
`--config=configs/prm_math.py:runlocal`.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spare_jax import assets
from spare_jax.storage.jsonlines import StoreError, digest, read_json, write_json

TEACHER = "tiny-teacher"
SPARE = (
    "step_accuracy", "error_precision", "error_recall", "wrong_reference_drop", "explanation_agreement",
    "reference_right", "parse_failure_rate", "missed_step_rate",
)  # fmt: skip


def row(metrics: Mapping[str, Any], seconds: float | None) -> dict[str, Any]:
    """The row of a seed, from its metrics.json; a figure that is undefined is None.

    Args:
      seconds: wall-clock time of the run; None if it was interrupted.

    Returns:
      {"seed", "seconds", the annotator's figures `SPARE`, "pass_at_1", "majority", "oracle", "weighted" (the vote
      weighted by the PRM's last score), "prm_minus_majority" and "prm_minus_orm" ({"mean", "low", "high"}),
      "first_error_f1" of the PRM}.
    """
    selection, judge = metrics["selection"], metrics["prm"]["judge"]
    differences = ("prm_minus_majority", "prm_minus_orm")
    return {
        "seed": metrics["seed"],
        "seconds": seconds,
        **{key: metrics["judges"]["spare"][key] for key in SPARE},
        "pass_at_1": metrics["policy"]["pass_at_1"],
        "majority": selection["majority"],
        "oracle": selection["oracle"],
        "weighted": selection["prm"]["weighted"]["last"],
        **{name: {key: selection[name][key] for key in ("mean", "low", "high")} for name in differences},
        "first_error_f1": judge and judge["f1"],
    }


def run_seed(config: str, seed: int, directory: Path) -> dict[str, Any]:
    """Run, or continue, the main job of one seed in its directory; returns its row.

    Raises:
      subprocess.CalledProcessError: the run failed; it has printed why.
    """
    begun_before, began = directory.exists(), time.monotonic()
    command = ["--config=" + config, f"--config.seed={seed}", f"--workdir={directory}"]
    subprocess.run([sys.executable, "-m", "spare_jax.main", *command], check=True)
    seconds = None if begun_before else round(time.monotonic() - began, 1)
    return row(read_json(directory / "metrics.json"), seconds)


def archive(target: Path, config: str) -> dict[str, Any]:
    """The content of the file of rows; without rows if there is no file yet.

    Raises:
      StoreError: its rows are of another config or another annotator.
    """
    origin = {"config": config, "teacher": digest(assets.directory(TEACHER) / "model.safetensors")}
    archived = read_json(target) if target.exists() else origin | {"rows": []}
    for key, value in origin.items():
        if archived[key] != value:
            raise StoreError(f"{target}: its rows are of {key} {archived[key]}, not of {value}: name another file")
    return archived


def main(arguments: Sequence[str]) -> None:
    """Run the seeds that the file lacks, and write the file after each."""
    parser = argparse.ArgumentParser(description="The main job on several seeds, archived as JSON.")
    parser.add_argument("target", type=Path, help="the JSON file, such as docs/results/main_job.json")
    parser.add_argument("workdir", type=Path, help="gets a work directory per seed")
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--config", default="configs/prm_math.py")
    given = parser.parse_args(arguments)
    try:
        archived = archive(given.target, given.config)
        for seed in given.seeds:
            if all(row["seed"] != seed for row in archived["rows"]):
                archived["rows"].append(run_seed(given.config, seed, given.workdir / str(seed)))
                write_json(given.target, archived)
    except StoreError as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError:
        sys.exit("error: a seed's run failed, see above: run the same command again to go on")
    print(f"{given.target}: {len(archived['rows'])} seeds")


if __name__ == "__main__":
    main(sys.argv[1:])
