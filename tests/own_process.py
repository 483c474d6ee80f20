"""Python in a process of its own: with a number of devices of its own, or to be killed."""

import json
import os
import subprocess
import sys
from typing import Any


def run(*command: object, devices: int | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`python *command`, which imports what tests import, on `devices` fake devices of the CPU where they are given."""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)} | environment
    if devices is not None:
        environment |= {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, *map(str, command)], env=os.environ | environment, capture_output=True, text=True, timeout=900,
        check=False,
    )  # fmt: skip


def printed(*command: object, devices: int | None = None, **environment: str) -> Any:
    """What the last line that `python *command` prints holds, as JSON."""
    done = run(*command, devices=devices, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
