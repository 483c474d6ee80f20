"""What every process of the tests begins with: one cache of what is compiled, for all of them and the processes that
they start (compiling is three quarters of what they cost), and one device, unless a process is started with more
(own_process.py)."""

import os
import pathlib

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "spare_jax" / "tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
ONE_DEVICE = "--xla_force_host_platform_device_count=1"  # or main.py would split the CPU of whoever asks it first
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {ONE_DEVICE}"
os.environ["HF_HUB_OFFLINE"] = "1"
