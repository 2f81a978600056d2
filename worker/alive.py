"""Signs of life for a process's monitor: a file in home that the process touches, and its age as an exit code.

`python -m worker.alive NAME` exits with 1 if `NAME` (worker, dispatcher) has not touched its file for too long; `api`
is asked for `/healthz`, and each answer touches its file. Neither side needs the database or the broker: an outage of
these is no reason to restart a process that waits for them. Where a container has a worker for each device, `worker` is
the process that watches them, and each worker has its own name.

With `--end` such a process is killed too, if it ever gave a sign of life. Its container then ends, and Compose starts
it again: Compose restarts what ended, but nothing that is merely unhealthy.

The file's time comes from the machine's monotonic clock, so that a change of the wall clock does not make a process
look silent.
"""

import contextlib
import os
import signal
import sys
import time
import urllib.request
from pathlib import Path

import psutil

from core.settings import Settings, get_settings

SILENT_ROUNDS = 30
"""Number of rounds without a sign of life after which a dispatcher counts as hung."""

API_SECONDS = 60.0
"""Seconds without an answer after which an API counts as hung; one answer may be late where many ask."""

WORKER, DISPATCHER, API = "worker", "dispatcher", "api"


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
    if name == API:
        return API_SECONDS
    return settings.worker_fresh_seconds


def _file(name: str, settings: Settings) -> Path:
    return settings.home / f"{name}.alive"


def end_container(init: int = 1) -> None:
    """Kill the main process of this container, the child of its init, which ends with it and the container too."""
    for process in psutil.Process(init).children():
        process.send_signal(signal.SIGKILL)  # one that hangs may follow no other signal


def _ask_api(settings: Settings) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{os.environ.get('UVICORN_PORT', '8000')}/healthz", timeout=4).close()
    except OSError as error:
        print(f"{API}: {error}")
        return False
    touch(API, settings)
    return True


def main() -> int:
    name = sys.argv[1]
    settings = get_settings()
    is_healthy = name != API or _ask_api(settings)
    silent = seconds_silent(name, settings)
    print(f"{name}: last sign of life {silent:.0f} s ago")
    is_silent = silent > longest_silence(name, settings)
    if is_silent and silent < float("inf") and "--end" in sys.argv:  # what never lived would not the next time either
        end_container()
    return int(is_silent or not is_healthy)


if __name__ == "__main__":
    sys.exit(main())
