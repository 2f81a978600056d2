"""Pace of a worker's processors: operations a second in products of matrices, measured in a process of its own.

The process uses as many threads as a runner does. The worker loads no library of matrices itself.
"""

import os
import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from core.settings import Settings
from worker.processes import run

SECONDS: Final = 0.3
"""Time for the products; starting the process takes about as long again."""
_WIDTH: Final = 768
"""Rows and columns of the matrices: those of a small language model's layers."""
_COMMAND: Final = (sys.executable, "-P", "-m", "worker.pace")


def operations_per_second(settings: Settings) -> float | None:
    """Return the floating-point operations a second that a runner's threads do now; None where that fails."""
    threads: Mapping[str, str] = {} if settings.threads is None else {"OMP_NUM_THREADS": str(settings.threads)}
    measured = run(_COMMAND, name="pace", environment={**os.environ, **threads})
    with suppress(ValueError):
        return float(measured.stdout) if measured.returncode == 0 else None
    return None


def measure() -> float:
    """Return the median of operations a second over products in float32, 2 n³ operations each."""
    import numpy as np

    matrix = np.random.default_rng(0).random((_WIDTH, _WIDTH), dtype=np.float32)
    matrix @ matrix  # starts the threads
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while (began := time.perf_counter()) < end or not times:
        matrix @ matrix
        times.append(time.perf_counter() - began)
    return 2 * _WIDTH**3 / statistics.median(times)


if __name__ == "__main__":
    print(measure())
