"""Progress bars of file transfers, on stderr and only on a terminal."""

import sys

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from secateur.cli.output import Printer
from secateur.uploads import UploadProgress


def transfer_bars() -> Progress:
    """Return a progress bar for each file: name, bytes, speed, remaining time."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=40),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=Printer(stderr=True),
        disable=not sys.stderr.isatty(),
    )


class UploadBars:
    """Bars for uploaded files: each fills while the file is hashed, and again while it is sent."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, tuple[str, TaskID]] = {}

    def show(self, progress: UploadProgress) -> None:
        doing, task = self._tasks.get(progress.path, ("", TaskID(-1)))
        if doing == "":
            task = self._bars.add_task(progress.path, total=progress.total)
        if doing != progress.doing:
            self._bars.reset(task, description=f"{progress.doing} {progress.path}", total=progress.total)
            self._tasks[progress.path] = (progress.doing, task)
        self._bars.update(task, completed=progress.done)
