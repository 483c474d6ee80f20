"""The main job on several seeds: runs them one after another, and archives a row of figures per seed.

    python -m spare_jax.studies.main_job docs/results/main_job.json WORKDIR SEED...
    python -m spare_jax.studies.main_job_tables docs/results/main_job.json > docs/results/main_job_tables.md

Each seed is `configs/prm_math.py --config.seed=SEED` in WORKDIR/SEED, in a process of its own, as a user starts it. A
seed whose row is in the file is not run again, and one that was ended goes on. The file names its config and the digest
of the annotator's weights, which are those of all its rows. `--config=configs/prm_math.py:runlocal` is the same in
small.
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
    """What is kept of the metrics.json of one seed; what is undefined there is None here.

    Args:
      seconds: what the run took by the clock, None where it was not run in one go.

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
    """Run the main job of one seed in its directory, or go on with it; its row.

    Raises:
      subprocess.CalledProcessError: the run failed; it has said why.
    """
    begun_before, began = directory.exists(), time.monotonic()
    command = ["--config=" + config, f"--config.seed={seed}", f"--workdir={directory}"]
    subprocess.run([sys.executable, "-m", "spare_jax.main", *command], check=True)
    seconds = None if begun_before else round(time.monotonic() - began, 1)
    return row(read_json(directory / "metrics.json"), seconds)


def archive(target: Path, config: str) -> dict[str, Any]:
    """The file of rows as it stands, an empty one where there is none.

    Raises:
      StoreError: its rows are of another config, or were taken with another annotator.
    """
    of = {"config": config, "teacher": digest(assets.directory(TEACHER) / "model.safetensors")}
    found = read_json(target) if target.exists() else of | {"rows": []}
    for key, value in of.items():
        if found[key] != value:
            raise StoreError(f"{target}: its rows are of {key} {found[key]}, not of {value}: name another file")
    return found


def main(arguments: Sequence[str]) -> None:
    """Run the seeds that the file lacks, and write it anew behind each."""
    parser = argparse.ArgumentParser(description="The main job on several seeds, archived as JSON.")
    parser.add_argument("target", type=Path, help="the JSON file, such as docs/results/main_job.json")
    parser.add_argument("workdir", type=Path, help="gets a work directory per seed")
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--config", default="configs/prm_math.py")
    given = parser.parse_args(arguments)
    try:
        found = archive(given.target, given.config)
        for seed in given.seeds:
            if all(row["seed"] != seed for row in found["rows"]):
                found["rows"].append(run_seed(given.config, seed, given.workdir / str(seed)))
                write_json(given.target, found)
    except StoreError as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError:
        sys.exit("error: a seed's run failed, see above: run the same command again to go on")
    print(f"{given.target}: {len(found['rows'])} seeds")


if __name__ == "__main__":
    main(sys.argv[1:])
