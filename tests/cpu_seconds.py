"""How long a call takes, whatever else this process and this machine are at."""

import time
import timeit
from collections.abc import Callable
from typing import Any


def cpu_seconds(call: Callable[[], Any]) -> float:
    """CPU seconds of one call, without the garbage collector, which in a large process walks through everything."""
    return timeit.timeit(call, timer=time.process_time, number=1)
