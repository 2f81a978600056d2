"""Cache of fetched content on this node: one folder for each content, shared by all workers here.

The least recently used entries are removed when there must be room.

    entries/KEY     complete, and never changed again
    partial/KEY     on its way; a fetch that was cut off resumes from it
    locks/KEY       locked shared by who uses the entry, alone by who fills or removes it; holds its size in bytes,
                    and its time is that of its last use

Locks are the kernel's (flock): they end with the process that holds them, however it ends.
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
_MAKING_ROOM = "making-room"


class LockedEntry:
    """A complete entry, safe from removal until closed."""

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
class _Kept:
    key: str
    bytes: int
    used_at: float


class NodeCache:
    """Cache of this node; `max_bytes` limits all entries together, those being filled included."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes

    def find(self, key: str) -> LockedEntry | None:
        """Return the entry, held and used now; None where it is not there or still being filled. Raises DiskFull."""
        entry = self._root / "entries" / _checked(key)
        if not entry.is_dir():
            return None
        lock = self._open(key)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        if not entry.is_dir():  # removed between the two looks
            os.close(lock)
            return None
        os.utime(lock)
        return LockedEntry(entry, lock)

    @contextmanager
    def fill(self, key: str, size: int, *, on_waiting: Callable[[], None] | None = None) -> Iterator[Path | None]:
        """Yield a folder to fill, with what an earlier try left; it becomes the entry when the context ends well.

        It is None where the entry is there already, whoever uses it. `size` is what it will take, in bytes; room for
        that much is made first. Waits for another process that fills the same entry, calling `on_waiting` once. Raises
        DiskFull or ModelTooLarge.
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
                self._make_room(key, size, partial)
                try:
                    yield partial
                    _note_size(lock, folder_bytes(partial))
                    _complete(partial, entry)
                except (OSError, DiskFull) as error:
                    if isinstance(error, DiskFull) or error.errno in (errno.ENOSPC, errno.EDQUOT):
                        shutil.rmtree(partial, ignore_errors=True)  # a full disk is not left full
                    raise
            finally:
                os.close(lock)

    def reclaimable_bytes(self) -> int:
        """Return the bytes that removing every unused entry would free."""
        return sum(kept.bytes for kept in self._kept() if self._is_free(kept.key))

    def reclaim(self, free_bytes: int) -> None:
        """Remove entries nobody uses, least recently used first, until the disk has this much free or none is left."""
        with self._making_room():
            for kept in sorted(self._kept(), key=lambda each: each.used_at):
                if self._free() >= free_bytes:
                    return
                self._remove(kept.key)

    def _make_room(self, key: str, size: int, partial: Path) -> None:
        if size > self._max_bytes:
            raise ModelTooLarge(
                f"{size} bytes are to be fetched, and this worker keeps at most {self._max_bytes} "
                "(SECATEUR_CACHE_MAX_BYTES)",
                param="model",
            )
        with self._making_room():
            others = sorted((kept for kept in self._kept() if kept.key != key), key=lambda each: each.used_at)
            used = sum(kept.bytes for kept in others)
            missing = size - folder_bytes(partial)
            while used + size > self._max_bytes or self._free() < missing:
                if not others:
                    raise DiskFull(
                        f"{missing} bytes are to be fetched; the disk of {self._root} has {self._free()} free, and "
                        f"other jobs use {used} of the {self._max_bytes} the cache may take"
                    )
                oldest = others.pop(0)
                if self._remove(oldest.key):
                    used -= oldest.bytes

    def _kept(self) -> list[_Kept]:
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
                entries.append(_Kept(name, int(text) if text.isdecimal() else 0, lock.stat().st_mtime))
        return entries

    def _is_free(self, key: str) -> bool:
        return is_free(self._open(key))

    def _remove(self, key: str) -> bool:
        """Remove an entry; return False where a process uses or fills it."""
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
    def _making_room(self) -> Iterator[None]:
        """Hold the lock to make room: two processes that did so at once would count the same bytes twice."""
        lock = self._open(_MAKING_ROOM)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for removed in self._root.glob("removed-*"):  # a removal that was cut off
                shutil.rmtree(removed, ignore_errors=True)
            yield
        finally:
            os.close(lock)

    def _lock_to_fill(self, lock: int, entry: Path, on_waiting: Callable[[], None] | None) -> None:
        """Lock alone; together with those who use the entry where it is there, for they may hold it for hours."""
        while not lock_now(lock, fcntl.LOCK_EX):
            if not lock_now(lock, fcntl.LOCK_SH):
                if on_waiting is not None:
                    on_waiting()
                    on_waiting = None
                fcntl.flock(lock, fcntl.LOCK_SH)  # until whoever fills it has ended
            if entry.is_dir():
                return
            fcntl.flock(lock, fcntl.LOCK_UN)

    def _open(self, key: str) -> int:
        """Lock files are never removed: two who lock the same name must lock the same file."""
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
    """Write the size with a fixed length, so that no disk is too full to write it a second time."""
    os.pwrite(lock, f"{size:020d}".encode(), 0)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
