"""A runner on a machine whose disk somebody fills once it has saved a block: `python -m tests.worker.filling_runner
FOLDER`, which gets its spec as a runner does.
"""

import runpy
import sys
from pathlib import Path
from typing import Any

from core.engine.resume.kinds import STATE


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
    sys.addaudithook(_FillOnceABlockIsSaved(Path(sys.argv[1])))
    runpy.run_module("worker.runner", run_name="__main__")


class _FillOnceABlockIsSaved:
    """What is saved is complete with the renaming of its state."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_full = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and not self._is_full and str(arguments[1]).endswith(STATE):
            self._is_full = True
            fill(self._folder)


if __name__ == "__main__":
    main()
