"""Where finished artifacts are kept: a local folder. Names in the store are the server's own."""

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import NotFound

MANIFEST = "secateur.json"
_CHUNK_BYTES = 2**20
_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class StoredFile:
    """One file of an artifact; `path` is relative to it, with `/`."""

    path: str
    bytes: int
    sha256: str


def artifact_prefix(job_id: str, attempt: int) -> str:
    """Where an attempt's artifact lies in a store: a stale attempt cannot touch a newer one's."""
    return f"{job_id}/attempt-{attempt}"


class LocalStore:
    """A store in a folder. Every name is checked, and no path, links included, leads out of its prefix."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def is_usable(self) -> bool:
        """Whether files can be written here."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError:
            return False
        return os.access(self._root, os.W_OK | os.X_OK)

    def folder(self, prefix: str) -> Path:
        """The folder of a published artifact, for processes on this machine."""
        return self._root / _checked(prefix)

    def publish(self, folder: Path, prefix: str) -> list[StoredFile]:
        """Copy a folder's files in: written aside and fsynced, the manifest last, then renamed into place at once.

        An artifact already at `prefix` is replaced. Raises ValueError on a link, a name that cannot be stored, or a
        folder without a manifest.
        """
        target = self._root / _checked(prefix)
        files = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
        names = [_checked(path.relative_to(folder).as_posix()) for path in files]
        if MANIFEST not in names:
            raise ValueError(f"{folder} has no {MANIFEST}: the artifact is not finished")
        if any(path.is_symlink() or not path.is_file() for path in files):
            raise ValueError(f"{folder} holds something that is not a regular file")
        aside = self._root / f".incoming-{uuid.uuid4().hex}"
        try:
            stored = [
                _copy(folder / name, aside / name, name)
                for name in sorted(names, key=lambda each: (each == MANIFEST, each))
            ]
            for where, _, _ in os.walk(aside):
                _sync_folder(Path(where))
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                shutil.rmtree(target)
            aside.rename(target)
            _sync_folder(target.parent)
            _sync_folder(self._root)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return sorted(stored, key=lambda each: each.path)

    def open_range(self, prefix: str, path: str, start: int, end: int) -> Iterator[bytes]:
        """Bytes `start` to before `end` of a file. Raises NotFound at once, not at the first chunk."""
        try:
            file = self._root / _checked(prefix) / _checked(path)
            real = file.resolve(strict=True)
        except (ValueError, OSError):
            raise NotFound(f"there is no file {path!r} in this artifact") from None
        if not real.is_relative_to(self._root / prefix) or not real.is_file():
            raise NotFound(f"there is no file {path!r} in this artifact")
        return _read(real, start, end)

    def delete(self, prefix: str) -> None:
        """Remove an artifact; nothing happens where there is none."""
        target = self._root / _checked(prefix)
        aside = self._root / f".deleted-{uuid.uuid4().hex}"
        try:
            target.rename(aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside)


def _checked(name: str) -> str:
    if not all(_COMPONENT.fullmatch(part) for part in name.split("/")):
        raise ValueError(f"{name!r} is not a name a store takes")
    return name


def _copy(source: Path, target: Path, name: str) -> StoredFile:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    size = 0
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            digest.update(chunk)
            writer.write(chunk)
            size += len(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return StoredFile(path=name, bytes=size, sha256=digest.hexdigest())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(file: Path, start: int, end: int) -> Iterator[bytes]:
    with file.open("rb") as stream:
        stream.seek(start)
        left = end - start
        while left > 0 and (chunk := stream.read(min(left, _CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk
