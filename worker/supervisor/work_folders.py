"""Work folders of jobs on this node, `work/JOB/attempt-N`, and their removal.

An attempt locks its job's folder by a kernel lock, which ends with its process. A folder that nobody locks is removed
when the queue has no more use for it, even if its worker was killed and the job ended elsewhere.
"""

import contextlib
import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.engine.resume.kinds import kinds_in
from core.service.jobs.work_folders import WORK_USES, WorkUse, uses_of_work
from worker.locks import is_free

_NOT_RESUMED = ("artifact", "pruned")
"""Folders of an attempt that later attempts do not resume from."""
_LOCK = "lock"
_REMOVED = "removed-"
_JOB = re.compile(r"job_[0-9a-z]+")

logger = structlog.get_logger()


@dataclass(frozen=True)
class WorkFigures:
    """Number of jobs that have a folder here, and the bytes of all folders on the disk."""

    folders: int
    bytes: int


class WorkFolders:
    """Work folders of one node; any number of processes may use them at the same time."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def locked(self, job_id: str) -> Iterator[None]:
        """Lock a job's folder against sweeps; it is created if it is missing."""
        folder = self._root / job_id
        lock = _lock_shared(folder)
        try:
            yield
        finally:
            os.close(lock)

    def keep_resume_files(self, job_id: str) -> None:
        """Keep the newest files of each kind that a retry resumes from, after a job failed or was cancelled."""
        folder = self._root / job_id
        attempts = sorted(folder.glob("attempt-*"), key=_number, reverse=True)
        newest: dict[str, Path] = {}
        for attempt in attempts:
            newest = dict.fromkeys(kinds_in(attempt), attempt) | newest
        if not newest:
            self.remove(job_id)
            return
        for attempt in attempts:
            for path in [attempt] if attempt not in newest.values() else [attempt / name for name in _NOT_RESUMED]:
                shutil.rmtree(path, ignore_errors=True)

    def remove(self, job_id: str) -> bool:
        """Remove a job's folder; return False if an attempt holds its lock."""
        folder = self._root / job_id
        removed = self._root / f"{_REMOVED}{uuid.uuid4().hex}"
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # the folder is gone, or its creator ended before the lock existed
            with contextlib.suppress(FileNotFoundError):
                folder.rename(removed)
        else:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with contextlib.suppress(FileNotFoundError):
                    folder.rename(removed)
            except BlockingIOError:
                return False
            finally:
                os.close(lock)
        shutil.rmtree(removed, ignore_errors=True)
        return True

    def sweep(self, sessions: sessionmaker[Session], resume_keep_seconds: float, *, free_bytes: int = 0) -> None:
        """Remove folders that are no longer needed and, if the disk has less than `free_bytes` free, more folders.

        The additional folders belong to jobs that could resume from them; these jobs then start over. If removing all
        of them would not free enough, none is removed. A folder of a job that the database does not know is removed
        when it was not touched for `resume_keep_seconds`.
        """
        for left in self._root.glob(f"{_REMOVED}*"):  # an interrupted removal
            shutil.rmtree(left, ignore_errors=True)
        job_ids = self._jobs()
        if not job_ids:
            return
        with transaction(sessions) as session:
            uses = uses_of_work(session, job_ids, resume_keep_seconds)
        for job_id in job_ids:
            is_over = uses[job_id] is None if job_id in uses else self._age(job_id) > resume_keep_seconds
            if is_over and self.remove(job_id):
                logger.info("work folder removed", job=job_id)
        self._remove_resumable({job_id: use for job_id, use in uses.items() if use is not None}, free_bytes)

    def figures(self) -> WorkFigures:
        """Return the figures of the folders here."""
        return WorkFigures(len(self._jobs()), _disk_bytes(self._root))

    def _remove_resumable(self, uses: dict[str, WorkUse], free_bytes: int) -> None:
        if self._free() >= free_bytes:
            return
        idle = [job_id for job_id in self._jobs() if job_id in uses and not self._is_locked(job_id)]
        if self._free() + sum(_disk_bytes(self._root / each) for each in idle) < free_bytes:
            return
        for job_id in sorted(idle, key=lambda each: (WORK_USES.index(uses[each]), -self._age(each))):
            if self._free() >= free_bytes:
                return
            if self.remove(job_id):
                logger.warning("work folder given up for space: the job starts over", job=job_id, use=uses[job_id])

    def _jobs(self) -> list[str]:
        if not self._root.is_dir():
            return []
        return sorted(each.name for each in self._root.iterdir() if _JOB.fullmatch(each.name))

    def _is_locked(self, job_id: str) -> bool:
        try:
            lock = os.open(self._root / job_id / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        return not is_free(lock)

    def _age(self, job_id: str) -> float:
        """Return the seconds since an attempt began or ended here."""
        folder = self._root / job_id
        try:
            return time.time() - max(each.stat().st_mtime for each in (folder, *folder.iterdir()))
        except FileNotFoundError:
            return 0.0

    def _free(self) -> int:
        return shutil.disk_usage(self._root).free


def _lock_shared(folder: Path) -> int:
    """Lock the job's folder shared, so that an attempt never waits for a frozen one.

    A sweep may remove the folder between any two steps, so the lock of the file that exists afterwards counts.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(lock).st_ino == (folder / _LOCK).stat().st_ino:
                return lock
        os.close(lock)


def _number(attempt: Path) -> int:
    return int(attempt.name.removeprefix("attempt-"))


def _disk_bytes(folder: Path) -> int:
    """Return the bytes of a folder on the disk; hard links count once, and files that vanish meanwhile not at all."""
    sizes: dict[int, int] = {}
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = Path(where, name).lstat()
                sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())
