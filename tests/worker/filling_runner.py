"""A runner on a machine whose disk somebody fills: `python -m tests.worker.filling_runner RUNNER TASK WHEN FOLDER`.

RUNNER is the module that does the work, and gets its spec as always. Its task TASK (other tasks are left alone) meets a
full disk at FOLDER: from its `start`, or from the moment it has saved a `block`.
"""

import json
import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any


def fill(folder: Path) -> None:
    """To the last byte, in a file that only the test removes."""
    with (folder / "of-somebody-else").open("ab", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


def main() -> None:
    module, task, when, folder = sys.argv[1:5]
    raw = sys.stdin.buffer.read()
    with tempfile.TemporaryFile() as again:  # not on the disk that is filled
        again.write(raw)
        again.seek(0)
        os.dup2(again.fileno(), 0)
    spec = json.loads(raw)
    if spec["task"] == task and when == "start":
        fill(Path(folder))
    elif spec["task"] == task:
        sys.addaudithook(_FillOnceABlockIsSaved(Path(folder)))
    sys.argv = [module, "{}"]
    runpy.run_module(module, run_name="__main__")


class _FillOnceABlockIsSaved:
    """What is saved is complete with the renaming of its state."""

    def __init__(self, folder: Path) -> None:
        from core.pruning.boundaries import STATE  # the engine's, which no stand-in needs

        self._folder = folder
        self._state = STATE
        self._is_full = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and not self._is_full and str(arguments[1]).endswith(self._state):
            self._is_full = True
            fill(self._folder)


if __name__ == "__main__":
    main()
