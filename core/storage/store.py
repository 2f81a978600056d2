"""Protocol `Store`, and the names, hashes and rules for writing files that all stores share."""

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from prometheus_client import Histogram

from secateur_wire.errors import DiskFull, NotFound

MANIFEST = "secateur.json"
PACKED_SUFFIX = ".packed.safetensors"
HASHED_SUFFIX = ".hashed.safetensors"
"""Suffixes of weights in a smaller form than the one a model is opened from; no loader reads such files as weights."""
GENERATED_PREFIX = "generated"
"""Prefix of texts that models generated, each under its key."""
CHUNK_BYTES = 2**20
STORE_SECONDS = Histogram(
    "secateur_store_seconds",
    "Time from a request to a bucket to its answer or error, of this process.",
    ["operation"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0),
)
_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

Watch = Callable[[], None]
"""Function that long operations call a few times a second; an exception from it ends the operation and leaves nothing.
"""


@dataclass(frozen=True)
class StoredFile:
    """File of an artifact; `path` is relative to the artifact, with `/`."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class UploadPart:
    """Stored file that is a part of a larger one."""

    path: str
    bytes: int


@dataclass(frozen=True)
class Usage:
    """Bytes of the files at or below a prefix, and the time of the last write there."""

    bytes: int
    touched: datetime


@dataclass(frozen=True)
class Unfinished:
    """Files of a killed or running writer that are not published; `prefix` has the first two names of their target."""

    prefix: str
    touched: datetime
    discard: Callable[[], None]


class Incoming(Protocol):
    """File that is being written to a store, with at most a few MiB of it in memory; `finish` makes it visible.

    Calls may come from different threads, one after another. They raise StoreUnavailable and DiskFull.
    """

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""

    def finish(self) -> None:
        """Put the file in its place."""

    def discard(self) -> None:
        """Remove the file if it is not finished; a finished file stays."""


class Store(Protocol):
    """Files under prefixes such as `JOB/attempt-1` or `models/ID`; the server creates all names, and they are checked.

    All methods may be called from any thread, and from processes forked after the store was opened. They raise
    StoreUnavailable if the store cannot be reached, and DiskFull if there is no space left.
    """

    def is_usable(self) -> bool:
        """Return whether files can be stored now."""

    def publish(self, folder: Path, prefix: str, *, watch: Watch | None = None) -> list[StoredFile]:
        """Store a folder with a manifest, the manifest last; existing files at `prefix` are replaced.

        After a failure nothing of it stays. Raises ValueError for a link, a name that cannot be stored, or a folder
        without a manifest.
        """

    def folder(self, prefix: str) -> Path | None:
        """Return the local folder of a prefix; None if its files must be fetched."""

    def open_range(self, prefix: str, path: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to before `end` of a file, or to its end; raises NotFound when called."""

    def fetch(self, prefix: str, path: str, target: Path, *, watch: Watch | None = None) -> None:
        """Fetch a file to this machine and fsync it; an interrupted fetch is resumed. Raises NotFound."""

    def presigned(self, prefix: str, path: str, filename: str) -> str | None:
        """Return a URL from which anybody can download a file for a while; None if the API must send it itself."""

    def delete(self, prefix: str) -> None:
        """Remove everything below a prefix, or one file of this name; do nothing if there is neither."""

    def create(self, prefix: str, path: str, content: bytes) -> None:
        """Store a small file, unless it exists; of several concurrent writers one wins."""

    def incoming(self, prefix: str, path: str) -> Incoming:
        """Begin a file whose bytes arrive one after another, however slowly; an existing file is replaced."""

    def join(self, prefix: str, parts: Sequence[UploadPart], target: str, path: str) -> None:
        """Make the file `path` at prefix `target` from stored parts, in order; the parts stay."""

    def children(self, prefix: str | None = None) -> Iterator[str]:
        """Yield the names one level below a prefix, or of the top level, that contain further names."""

    def usage(self, prefix: str) -> Usage | None:
        """Return the bytes at or below a prefix and the time of the last write; None if nothing is there."""

    def unfinished(self) -> Iterator[Unfinished]:
        """Yield the unpublished files of writers that are still writing or were killed."""


def artifact_prefix(job_id: str, attempt: int) -> str:
    """Return the prefix of an attempt's artifact; it is the attempt's own, so a stale attempt changes no newer one."""
    return f"{job_id}/attempt-{attempt}"


def checked(name: str) -> str:
    """Return the name unchanged; raises ValueError if it could lead to another path, or a store does not accept it."""
    if not all(_COMPONENT.fullmatch(part) for part in name.split("/")):
        raise ValueError(f"{name!r} is not a name a store takes")
    return name


def publishable(folder: Path) -> list[str]:
    """Return the files of a finished artifact in storing order, the manifest last; raises as `Store.publish`."""
    files = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = [checked(path.relative_to(folder).as_posix()) for path in files]
    if MANIFEST not in names:
        raise ValueError(f"{folder} has no {MANIFEST}: the artifact is not finished")
    if any(path.is_symlink() or not path.is_file() for path in files):
        raise ValueError(f"{folder} holds something that is not a regular file")
    return sorted(names, key=lambda each: (each == MANIFEST, each))


def missing(path: str) -> NotFound:
    return NotFound(f"there is no file {path!r} here")


def attachment(filename: str) -> str:
    """Return a Content-Disposition header that makes browsers save a file under this name."""
    return f"attachment; filename*=UTF-8''{quote(filename)}"


@contextmanager
def translate_disk_full() -> Iterator[None]:
    """Translate the system's "no space left" into DiskFull."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(f"no space left: {error}") from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error is the system's "no space left", on a disk or of a quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def fetch_resuming(read_from: Callable[[int], Iterator[bytes]], size: int, target: Path, watch: Watch | None) -> None:
    """Write the `size` bytes of `read_from(start)` to a file; bytes of an interrupted call are kept and continued."""
    partial = target.with_name(f"{target.name}.partial")
    with translate_disk_full(), partial.open("ab") as file:
        if file.tell() > size:  # the partial file belongs to other content
            file.truncate(0)
            file.seek(0)
        for chunk in read_from(file.tell()):
            if watch is not None:
                watch()
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        partial.replace(target)
        sync_folder(target.parent)


def hash_file(file: Path, watch: Watch | None) -> tuple[int, str]:
    """Return a file's size and SHA-256."""
    digest = hashlib.sha256()
    size = 0
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            if watch is not None:
                watch()
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make changes of names in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
