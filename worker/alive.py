"""Signs of life for a process's monitor: a file in home that the process touches, and its age as an exit code.

`python -m worker.alive NAME` exits with 1 if `NAME` (worker, dispatcher) has not touched its file for too long. Neither
side needs the database or the broker: an outage of these is no reason to restart a process that waits for them. Where a
container has a worker for each device, `worker` is the process that watches them, and each worker has its own name.

The file's time comes from the machine's monotonic clock, so that a change of the wall clock does not make a process
look silent.
"""

import contextlib
import os
import sys
import time
from pathlib import Path

from core.settings import Settings, get_settings

SILENT_ROUNDS = 30
"""Number of rounds without a sign of life after which a dispatcher counts as hung."""

WORKER, DISPATCHER = "worker", "dispatcher"


def worker_name(device: str | None) -> str:
    """Return the name of the worker of a device, or of the container's only worker."""
    return WORKER if device is None else f"{WORKER}-{device}"


def touch(name: str, settings: Settings) -> None:
    """Record a sign of life of this process; an error of the disk shows as silence."""
    file = _file(name, settings)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        now = time.monotonic()
        os.utime(file, (now, now))


def forget(name: str, settings: Settings) -> None:
    """Remove the file of an earlier process with this name."""
    _file(name, settings).unlink(missing_ok=True)


def seconds_silent(name: str, settings: Settings) -> float:
    """Return the seconds since the last sign of life; infinite if there was none since the machine started."""
    try:
        touched = _file(name, settings).stat().st_mtime
    except FileNotFoundError:
        return float("inf")
    now = time.monotonic()
    return now - touched if touched <= now else float("inf")


def longest_silence(name: str, settings: Settings) -> float:
    if name == DISPATCHER:
        return SILENT_ROUNDS * settings.dispatch_interval_seconds
    return settings.worker_fresh_seconds


def _file(name: str, settings: Settings) -> Path:
    return settings.home / f"{name}.alive"


def main() -> int:
    name = DISPATCHER if sys.argv[1] == DISPATCHER else WORKER
    settings = get_settings()
    silent = seconds_silent(name, settings)
    print(f"{name}: last sign of life {silent:.0f} s ago")
    return int(silent > longest_silence(name, settings))


if __name__ == "__main__":
    sys.exit(main())
