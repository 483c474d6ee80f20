"""An experiment on Vertex AI, by XManager: a run of the same config for each of some seeds.

    pip install xmanager
    export GOOGLE_CLOUD_BUCKET_NAME=BUCKET
    xmanager launch launch/xm_launch.py -- --name=prm --image=IMAGE --accelerator=l4 --seeds=303,404,505 \\
        --config=configs/prm_math.py --setting=data.train_problems=480

IMAGE is launch/Dockerfile's, made with JAX=cuda12 and pushed. The run of seed N writes to NAME/N in the bucket, which
Vertex AI mounts at /gcs/BUCKET; launched again under the same name, it goes on where it was interrupted.
"""

import os

from absl import app, flags
from xmanager import xm, xm_local

# By accelerator: XManager's name of it. These are the ones that it finds Vertex AI's machines for.
ACCELERATORS = {"l4": "l4_24th", "a100": "a100"}

_NAME = flags.DEFINE_string("name", None, "Of the experiment, and of its directory in the bucket.", required=True)
_IMAGE = flags.DEFINE_string("image", None, "Where the image was pushed.", required=True)
_CONFIG = flags.DEFINE_string("config", None, "As for spare_jax.main.", required=True)
_SETTINGS = flags.DEFINE_multi_string("setting", [], "KEY=VALUE, for every run: its --config.KEY=VALUE.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "A run for each.")
_ACCELERATOR = flags.DEFINE_enum("accelerator", "l4", list(ACCELERATORS), "Of a run.")
_GPUS = flags.DEFINE_integer("gpus", 1, "Of a run.", lower_bound=1)


def main(_: list[str]) -> None:
    bucket = os.environ.get("GOOGLE_CLOUD_BUCKET_NAME")
    if not bucket:
        raise app.UsageError("GOOGLE_CLOUD_BUCKET_NAME is not set: it names the bucket that runs write to")
    executor = xm_local.Vertex(xm.JobRequirements(**{ACCELERATORS[_ACCELERATOR.value]: _GPUS.value}))
    settings = [f"--config.{setting}" for setting in _SETTINGS.value]
    with xm_local.create_experiment(experiment_title=_NAME.value) as experiment:
        [executable] = experiment.package([xm.Packageable(xm.Container(_IMAGE.value), executor.Spec())])
        for seed in _SEEDS.value:
            workdir = f"/gcs/{bucket}/{_NAME.value}/{seed}"
            given = [f"--config={_CONFIG.value}", *settings, f"--config.seed={seed}", f"--workdir={workdir}"]
            experiment.add(xm.Job(executable, executor, args=given))


if __name__ == "__main__":
    app.run(main)
