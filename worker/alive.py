"""Signs of life for whatever watches a container: a file that is touched, and its age as an exit code.

`python -m worker.alive NAME SECONDS` exits with 1 where `NAME` (worker, dispatcher) has not been touched for that long.
Neither touching nor looking needs database or broker: an outage of theirs is no reason to restart what waits for them.
"""

import sys
import tempfile
import time
from pathlib import Path


def touch(name: str) -> None:
    _file(name).touch()


def seconds_silent(name: str) -> float:
    """Since the last sign of life; infinite before the first."""
    try:
        return time.time() - _file(name).stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _file(name: str) -> Path:
    return Path(tempfile.gettempdir(), f"secateur-{name}.alive")


def main() -> int:
    name, longest = sys.argv[1], float(sys.argv[2])
    silent = seconds_silent(name)
    print(f"{name}: last sign of life {silent:.0f} s ago")
    return int(silent > longest)


if __name__ == "__main__":
    sys.exit(main())
