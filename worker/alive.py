"""Signs of life for whatever watches a process: a file in home that is touched, and its age as an exit code.

`python -m worker.alive NAME` exits with 1 where `NAME` (worker, dispatcher) has not been touched for too long. Neither
touching nor looking needs database or broker: an outage of theirs is no reason to restart what waits for them.
"""

import contextlib
import sys
import time
from pathlib import Path
from typing import Literal

from core.settings import Settings, get_settings

SILENT_ROUNDS = 30
"""A dispatcher that ended no round in the time of so many stands still."""

Name = Literal["worker", "dispatcher"]


def touch(name: Name, settings: Settings) -> None:
    """Record a sign of life of this process; a disk that is full or gone shows as silence."""
    file = _file(name, settings)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def forget(name: Name, settings: Settings) -> None:
    """Remove what another process of this name left."""
    _file(name, settings).unlink(missing_ok=True)


def seconds_silent(name: Name, settings: Settings) -> float:
    """Return the seconds since the last sign of life; infinite before the first."""
    try:
        return time.time() - _file(name, settings).stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def longest_silence(name: Name, settings: Settings) -> float:
    if name == "dispatcher":
        return SILENT_ROUNDS * settings.dispatch_interval_seconds
    return settings.worker_fresh_seconds


def _file(name: Name, settings: Settings) -> Path:
    return settings.home / f"{name}.alive"


def main() -> int:
    name: Name = "dispatcher" if sys.argv[1] == "dispatcher" else "worker"
    settings = get_settings()
    silent = seconds_silent(name, settings)
    print(f"{name}: last sign of life {silent:.0f} s ago")
    return int(silent > longest_silence(name, settings))


if __name__ == "__main__":
    sys.exit(main())
