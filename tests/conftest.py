"""What every process of the tests begins with: one cache of what is compiled, for all of them and the processes that
they start; code that is hardly optimized; and one device, unless a process is started with more (own_process.py).

Compiling is three quarters of what the tests cost, and most of it is optimizing functions that then run for
milliseconds. Which bits a sum has may hang on it, so modules that promise bits to users are marked `optimized`.
"""

import os
import pathlib

import pytest

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "spare_jax" / "tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
ONE_DEVICE = "--xla_force_host_platform_device_count=1"  # or main.py would split the CPU of whoever asks it first
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {ONE_DEVICE}"
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="module", autouse=True)
def compiled_as_users_do(request):
    """For modules marked `optimized`, and the processes that they start."""
    if not request.node.get_closest_marker("optimized"):
        yield
        return
    import jax

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "0")
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", False)
        yield
        jax.config.update("jax_disable_most_optimizations", True)
        jax.clear_caches()
