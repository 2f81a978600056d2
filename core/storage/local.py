"""Store in a folder of this machine."""

import contextlib
import errno
import functools
import hashlib
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from core.storage.store import (
    CHUNK_BYTES,
    StoredFile,
    Unfinished,
    UploadPart,
    Usage,
    Watch,
    checked,
    fetch_resuming,
    missing,
    publishable,
    sync_folder,
    translate_disk_full,
)

_TEMPORARY = re.compile(r"\.(?:incoming|deleted)-(?:(.+)-)?[0-9a-f]{32}")


class LocalStore:
    """Store in a folder: every name is checked, and no path or link leads out of its prefix.

    Written files have a temporary name, `.incoming-PREFIX-…`, until they are complete and flushed to disk. Then they
    are renamed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def is_usable(self) -> bool:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError:
            return False
        return os.access(self._root, os.W_OK | os.X_OK)

    def folder(self, prefix: str) -> Path:
        return self._root / checked(prefix)

    def publish(self, folder: Path, prefix: str, *, watch: Watch | None = None) -> list[StoredFile]:
        target = self.folder(prefix)
        names = publishable(folder)
        temporary = self._temporary_path("incoming", prefix)
        try:
            with translate_disk_full():
                stored = []
                for name in names:
                    file = temporary / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    size, sha256 = _write(file, _read(folder / name), watch)
                    stored.append(StoredFile(name, size, sha256))
                for where, _, _ in os.walk(temporary):
                    sync_folder(Path(where))
                self._place(temporary, target, instead_of=prefix)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return sorted(stored, key=lambda each: each.path)

    def open_range(self, prefix: str, path: str, start: int, end: int) -> Iterator[bytes]:
        return _read(self._file(prefix, path), start, end)

    def fetch(self, prefix: str, path: str, target: Path, *, watch: Watch | None = None) -> None:
        file = self._file(prefix, path)
        size = file.stat().st_size
        fetch_resuming(lambda start: _read(file, start, size), size, target, watch)

    def presigned(self, prefix: str, path: str, filename: str) -> None:
        return None

    def delete(self, prefix: str) -> None:
        target = self.folder(prefix)
        temporary = self._temporary_path("deleted", prefix)
        try:
            target.rename(temporary)
        except FileNotFoundError:
            return
        _remove(temporary)
        if target.parent != self._root:
            with contextlib.suppress(OSError):  # other files may be in it
                target.parent.rmdir()

    def create(self, prefix: str, path: str, content: bytes) -> None:
        file = self.folder(prefix) / checked(path)
        temporary = self._temporary_path("incoming", prefix)
        try:
            with translate_disk_full():
                _write(temporary, iter([content]), None)
                file.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):  # another writer was first: its file stays
                    os.link(temporary, file)
                sync_folder(file.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def incoming(self, prefix: str, path: str) -> "LocalIncoming":
        target = self.folder(prefix) / checked(path)
        with translate_disk_full():
            return LocalIncoming(
                self._temporary_path("incoming", prefix), lambda temporary: self._place(temporary, target)
            )

    def join(self, prefix: str, parts: Sequence[UploadPart], target: str, path: str) -> None:
        files = [self._file(prefix, part.path) for part in parts]
        joined = self.incoming(target, path)
        try:
            for file in files:
                for chunk in _read(file):
                    joined.write(chunk)
            joined.finish()
        finally:
            joined.discard()

    def children(self, prefix: str | None = None) -> Iterator[str]:
        try:
            entries = os.scandir(self._root if prefix is None else self.folder(prefix))
        except (FileNotFoundError, NotADirectoryError):
            return
        with entries:
            yield from (entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))

    def usage(self, prefix: str) -> Usage | None:
        return _usage(self.folder(prefix))

    def unfinished(self) -> Iterator[Unfinished]:
        if not self._root.is_dir():
            return
        for entry in list(self._root.iterdir()):
            match = _TEMPORARY.fullmatch(entry.name)
            usage = match and _usage(entry)
            if match and usage:
                prefix = (match[1] or "").replace("+", "/")
                yield Unfinished(prefix, usage.touched, functools.partial(_remove, entry))

    def _temporary_path(self, what: str, prefix: str) -> Path:
        """Return a new temporary path on the store's file system, named after the first two parts of the prefix."""
        owner = "+".join(checked(prefix).split("/")[:2])
        self._root.mkdir(parents=True, exist_ok=True)
        return self._root / f".{what}-{owner}-{uuid.uuid4().hex}"

    def _place(self, temporary: Path, target: Path, *, instead_of: str | None = None) -> None:
        """Rename to the target, even if other processes add or remove files there at the same time."""
        while True:
            try:
                if instead_of is not None:
                    self.delete(instead_of)
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary.rename(target)
                break
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST) or not temporary.exists():
                    raise
        folder = target.parent
        while folder.is_relative_to(self._root):
            with contextlib.suppress(FileNotFoundError):  # another process deleted it
                sync_folder(folder)
            folder = folder.parent

    def _file(self, prefix: str, path: str) -> Path:
        try:
            file = self.folder(prefix) / checked(path)
            real = file.resolve(strict=True)
        except (ValueError, OSError):
            raise missing(path) from None
        if not real.is_relative_to(self._root / prefix) or not real.is_file():
            raise missing(path)
        return real


class LocalIncoming:
    """File under a temporary name until `place` renames it."""

    def __init__(self, temporary: Path, place: Callable[[Path], None]) -> None:
        self._temporary, self._place = temporary, place
        self._file = temporary.open("xb")

    def write(self, chunk: bytes) -> None:
        with translate_disk_full():
            self._file.write(chunk)

    def finish(self) -> None:
        with translate_disk_full():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._place(self._temporary)

    def discard(self) -> None:
        with contextlib.suppress(OSError):  # buffered data may not fit on the disk
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def _write(file: Path, chunks: Iterator[bytes], watch: Watch | None) -> tuple[int, str]:
    """Write a file and flush it to disk; return its size and SHA-256."""
    digest = hashlib.sha256()
    size = 0
    with file.open("xb") as target:
        for chunk in chunks:
            if watch is not None:
                watch()
            digest.update(chunk)
            target.write(chunk)
            size += len(chunk)
        target.flush()
        os.fsync(target.fileno())
    return size, digest.hexdigest()


def _read(file: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    with file.open("rb") as stream:
        stream.seek(start)
        left = CHUNK_BYTES if end is None else end - start
        while left > 0 and (chunk := stream.read(min(left, CHUNK_BYTES))):
            left -= 0 if end is None else len(chunk)
            yield chunk


def _usage(entry: Path) -> Usage | None:
    newest, size = 0.0, 0
    for path in (entry, *entry.rglob("*")):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # it is being removed or renamed
        newest = max(newest, status.st_mtime)
        size += 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return Usage(size, datetime.fromtimestamp(newest, UTC)) if newest else None


def _remove(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
