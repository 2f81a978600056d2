"""Cache of fetched content on this node: one folder for each content, shared by all workers here.

The least recently used entries are removed when space is needed.

    entries/KEY     complete, and never changed again
    partial/KEY     being filled; an interrupted fetch resumes from it
    locks/KEY       locked shared by users of the entry, exclusively to fill or remove it; it holds the entry's size
                    in bytes, and its modification time is the time of the last use

Locks are the kernel's (flock): they end with the process that holds them, for whatever reason it ends.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from core.storage.store import sync_folder, translate_disk_full
from secateur_wire.errors import DiskFull, ModelTooLarge
from worker.locks import is_free, lock_now

_KEY = re.compile(r"[a-z]+-[0-9a-f]{16,64}")
_EVICTION_LOCK = "making-room"


class LockedEntry:
    """Complete entry, which cannot be removed before it is closed."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _CachedFolder:
    key: str
    bytes: int
    used_at: float


class NodeCache:
    """Cache of this node; `max_bytes` limits all entries together, including partial ones."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes

    def find(self, key: str) -> LockedEntry | None:
        """Return the entry, locked and marked as used; None if it is missing or being filled. Raises DiskFull."""
        entry = self._root / "entries" / _checked(key)
        if not entry.is_dir():
            return None
        lock = self._open(key)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        if not entry.is_dir():  # it was removed before the lock was held
            os.close(lock)
            return None
        os.utime(lock)
        return LockedEntry(entry, lock)

    @contextmanager
    def fill(self, key: str, size: int, *, on_waiting: Callable[[], None] | None = None) -> Iterator[Path | None]:
        """Yield a folder to fill, with the files of an interrupted fill; it becomes the entry if no error is raised.

        Yields None if the entry already exists. `size` is the expected size in bytes; that much space is freed first.
        If another process fills the same entry, `on_waiting` is called once, and this process waits. Raises DiskFull or
        ModelTooLarge.
        """
        partial, entry = self._root / "partial" / _checked(key), self._root / "entries" / key
        with translate_disk_full():
            lock = self._open(key)
            try:
                self._lock_to_fill(lock, entry, on_waiting)
                if entry.is_dir():
                    yield None
                    return
                partial.mkdir(parents=True, exist_ok=True)
                _note_size(lock, size)
                self._evict(key, size, partial)
                try:
                    yield partial
                    _note_size(lock, folder_bytes(partial))
                    _complete(partial, entry)
                except (OSError, DiskFull) as error:
                    if isinstance(error, DiskFull) or error.errno in (errno.ENOSPC, errno.EDQUOT):
                        shutil.rmtree(partial, ignore_errors=True)  # free the disk that the fill has filled
                    raise
            finally:
                os.close(lock)

    def reclaimable_bytes(self) -> int:
        """Return the bytes that removing every unused entry would free."""
        return sum(kept.bytes for kept in self._cached_folders() if self._is_free(kept.key))

    def reclaim(self, free_bytes: int) -> None:
        """Remove unused entries, least recently used first, until the disk has this many free bytes or none is left."""
        with self._locked_for_eviction():
            for kept in sorted(self._cached_folders(), key=lambda each: each.used_at):
                if self._free() >= free_bytes:
                    return
                self._remove(kept.key)

    def _evict(self, key: str, size: int, partial: Path) -> None:
        if size > self._max_bytes:
            raise ModelTooLarge(
                f"{size} bytes must be fetched, but this worker keeps at most {self._max_bytes} "
                "(SECATEUR_CACHE_MAX_BYTES)",
                param="model",
            )
        with self._locked_for_eviction():
            others = sorted((kept for kept in self._cached_folders() if kept.key != key), key=lambda each: each.used_at)
            used = sum(kept.bytes for kept in others)
            missing = size - folder_bytes(partial)
            while used + size > self._max_bytes or self._free() < missing:
                if not others:
                    raise DiskFull(
                        f"{missing} bytes must be fetched, but the disk of {self._root} has {self._free()} free, "
                        f"and other jobs use {used} of the {self._max_bytes} that the cache may take"
                    )
                oldest = others.pop(0)
                if self._remove(oldest.key):
                    used -= oldest.bytes

    def _cached_folders(self) -> list[_CachedFolder]:
        """Return the entries, complete and partial."""
        names = {
            entry.name
            for part in ("entries", "partial")
            if (self._root / part).is_dir()
            for entry in (self._root / part).iterdir()
        }
        entries = []
        for name in names:
            lock = self._root / "locks" / name
            with contextlib.suppress(FileNotFoundError):
                text = lock.read_text()
                entries.append(_CachedFolder(name, int(text) if text.isdecimal() else 0, lock.stat().st_mtime))
        return entries

    def _is_free(self, key: str) -> bool:
        return is_free(self._open(key))

    def _remove(self, key: str) -> bool:
        """Remove an entry; return False if a process uses or fills it."""
        lock = self._open(key)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for part in ("entries", "partial"):
                removed = self._root / f"removed-{uuid.uuid4().hex}"
                with contextlib.suppress(FileNotFoundError):
                    (self._root / part / key).rename(removed)
                    shutil.rmtree(removed)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return True

    @contextmanager
    def _locked_for_eviction(self) -> Iterator[None]:
        """Hold the lock for freeing space; two processes at the same time would count the same bytes twice."""
        lock = self._open(_EVICTION_LOCK)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for removed in self._root.glob("removed-*"):  # an interrupted removal
                shutil.rmtree(removed, ignore_errors=True)
            yield
        finally:
            os.close(lock)

    def _lock_to_fill(self, lock: int, entry: Path, on_waiting: Callable[[], None] | None) -> None:
        """Lock exclusively; if the entry exists, lock shared, because its users may hold it for hours."""
        while not lock_now(lock, fcntl.LOCK_EX):
            if not lock_now(lock, fcntl.LOCK_SH):
                if on_waiting is not None:
                    on_waiting()
                    on_waiting = None
                fcntl.flock(lock, fcntl.LOCK_SH)  # until the process that fills it has ended
            if entry.is_dir():
                return
            fcntl.flock(lock, fcntl.LOCK_UN)

    def _open(self, key: str) -> int:
        """Open a lock file; lock files are never removed, because all processes must lock the same file."""
        locks = self._root / "locks"
        with translate_disk_full():
            locks.mkdir(parents=True, exist_ok=True)
            return os.open(locks / key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _free(self) -> int:
        return shutil.disk_usage(self._root).free


def _checked(key: str) -> str:
    assert _KEY.fullmatch(key), key
    return key


def _complete(partial: Path, entry: Path) -> None:
    for where, _, names in os.walk(partial):
        for name in names:
            with Path(where, name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(where))
    entry.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(entry)
    sync_folder(entry.parent)


def _note_size(lock: int, size: int) -> None:
    """Write the size with a fixed length, so that rewriting it needs no space on a full disk."""
    os.pwrite(lock, f"{size:020d}".encode(), 0)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
