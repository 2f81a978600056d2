"""Signs of life for whatever watches a process: a file in home that is touched, and its age as an exit code.

`python -m worker.alive NAME` exits with 1 where `NAME` (worker, dispatcher) has not been touched for too long. Neither
touching nor looking needs database or broker: an outage of theirs is no reason to restart what waits for them. Where a
container has a worker for each device, `worker` is the process that watches them, and each has a name of its own.

The file's time is that of the machine's monotonic clock: a wall clock that is set makes no process look silent.
"""

import contextlib
import os
import sys
import time
from pathlib import Path

from core.settings import Settings, get_settings

SILENT_ROUNDS = 30
"""A dispatcher that ended no round in the time of so many stands still."""

WORKER, DISPATCHER = "worker", "dispatcher"


def worker_name(device: str | None) -> str:
    """Return the name of the worker of one of several devices, or of the only worker."""
    return WORKER if device is None else f"{WORKER}-{device}"


def touch(name: str, settings: Settings) -> None:
    """Record a sign of life of this process; a disk that is full or gone shows as silence."""
    file = _file(name, settings)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        now = time.monotonic()
        os.utime(file, (now, now))


def forget(name: str, settings: Settings) -> None:
    """Remove what another process of this name left."""
    _file(name, settings).unlink(missing_ok=True)


def seconds_silent(name: str, settings: Settings) -> float:
    """Return the seconds since the last sign of life; infinite before the first since the machine was started."""
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
