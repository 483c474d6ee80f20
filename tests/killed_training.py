"""Run by test_training.py in a process of its own: trains in the directory given and kills itself (as kill -9 does)
when it has got to the step given."""

import os
import pathlib
import signal
import sys

import jax
import test_training


def main(directory: str, kill_at: int) -> None:
    def kill(step, steps, metrics):
        if step >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    mesh = jax.make_mesh(
        (1, 1, 1), test_training.sharding.MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3,
        devices=jax.devices()[:1],
    )  # fmt: skip
    model = test_training.decoder.init_decoder(test_training.CONFIG, jax.random.key(1))
    test_training.train(model, pathlib.Path(directory), mesh, patience=100, progress=kill)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
