"""Run by tests in a process of its own: trains, by the function `train` of the test module named, in the directory
given, and kills itself (as kill -9 does) when it has got to the step given."""

import importlib
import os
import pathlib
import signal
import sys

import jax

from spare_jax.models import decoder, sharding


def main(directory: str, kill_at: int, module: str) -> None:
    def kill(step, steps, metrics):
        if step >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    tests = importlib.import_module(module)
    mesh = jax.make_mesh(
        (1, 1, 1), sharding.MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3, devices=jax.devices()[:1]
    )
    model = decoder.init_decoder(tests.CONFIG, jax.random.key(1))
    tests.train(model, pathlib.Path(directory), mesh, patience=100, progress=kill)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
