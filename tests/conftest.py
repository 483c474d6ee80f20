"""What every process of the tests begins with: one compilation cache for all of them and the processes that they start
(compiling is most of what they cost), and one device, which no test can change after that."""

import os
import pathlib

CACHE = pathlib.Path(__file__).parent.parent / ".xla_cache"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"

import jax  # noqa: E402

jax.devices()  # from now on main.py, which splits a CPU into several, cannot
