"""A runner on a machine whose disk somebody fills: `python -m tests.worker.filling_runner RUNNER TASK WHEN FOLDER`.

RUNNER is the module that does the work, and gets its spec as always. Its task TASK (other tasks are left alone) meets a
full disk at FOLDER: from its `start`, or from when it has saved a `block`.
"""

import json
import os
import runpy
import sys
import tempfile
import threading
import time
from pathlib import Path


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
        threading.Thread(target=_fill_after_a_block, args=(Path(spec["work"]), Path(folder)), daemon=True).start()
    sys.argv = [module, "{}"]
    runpy.run_module(module, run_name="__main__")


def _fill_after_a_block(work: Path, folder: Path) -> None:
    while not any(work.glob("boundary-*/state.json")):
        time.sleep(0.001)
    fill(folder)


if __name__ == "__main__":
    main()
