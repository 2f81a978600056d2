"""Temporary folders on a disk that outlives processes: the next process removes the folders of a killed one."""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

from worker.locks import is_free

_LOCK = ".in-use"
_UNLOCKED_SECONDS = 24 * 3600.0
"""Age from which a folder without a lock counts as abandoned; a younger one may still be in creation."""


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder inside `parent`, whose name begins with `prefix`, and remove it at the end.

    Folders of the same prefix that no process uses any more are removed first. A lock in each shows whether one does.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{prefix}*/"):
        if not _is_used(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(mkdtemp(prefix=prefix, dir=parent))
    lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path) -> int:
    """Lock a folder; the lock file gets its name only when it is locked, so that no process sees it unlocked."""
    unnamed = folder / f"{_LOCK}.new"
    lock = os.open(unnamed, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    unnamed.rename(folder / _LOCK)
    return lock


def _is_used(folder: Path) -> bool:
    try:
        return not is_free(os.open(folder / _LOCK, os.O_RDWR))
    except FileNotFoundError:
        with contextlib.suppress(FileNotFoundError):
            return time.time() < folder.stat().st_mtime + _UNLOCKED_SECONDS
        return False
