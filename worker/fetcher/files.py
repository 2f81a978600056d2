"""Downloads of files from hub and store into a folder: several in parallel, resumed after an interruption.

A file gets its final name only when its hash is correct.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.service.sources.hub import Hub
from core.service.sources.hub_names import Kind
from core.service.sources.references import FileReference
from core.storage import Store
from core.storage.store import translate_disk_full
from secateur_wire.errors import HubUnavailable, NotFound, StoreUnavailable, Unavailable, UnusableModel

MOST_PARALLEL = 4
PROGRESS_SECONDS = 10.0
_CHUNK_BYTES = 2**20

Log = Callable[[str], None]
FetchFile = Callable[[FileReference, Path, Callable[[], None]], None]
"""Function that downloads a file to a path and resumes a partial file; it calls back between chunks."""
OpenRange = Callable[[FileReference, int], Iterator[bytes]]
"""Function that opens a file from a given byte on."""


class SiblingFailed(Exception):
    """Signal that another file of the same folder failed."""


@dataclass(frozen=True)
class Origin:
    """Source of files, and the error to raise if the source is unavailable or sends wrong files."""

    fetch: FetchFile
    unavailable: type[Unavailable]


def fetch_files(files: Sequence[FileReference], folder: Path, origin: Origin, *, what: str, log: Log) -> None:
    """Fetch all files, smallest first.

    Raises the errors of `origin`, and its `unavailable` error if bytes arrive damaged.
    """
    stop = threading.Event()

    def one(file: FileReference) -> None:
        def between() -> None:
            if stop.is_set():
                raise SiblingFailed

        try:
            _fetch_one(file, folder, origin, between)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(MOST_PARALLEL) as pool:
        ordered = sorted(files, key=lambda file: file.bytes)
        running = [pool.submit(one, file) for file in ordered]
        with _progress(files, folder, what, log):
            failures = [failure for each in running if (failure := each.exception()) is not None]
    for failure in failures:
        if not isinstance(failure, SiblingFailed):
            raise failure


def _fetch_one(file: FileReference, folder: Path, origin: Origin, between: Callable[[], None]) -> None:
    target = folder / file.path
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    arriving = target.with_name(f"{target.name}.arriving")
    if not arriving.is_file() or arriving.stat().st_size != file.bytes:
        origin.fetch(file, arriving, between)
    if not _is_right(arriving, file, between):
        arriving.unlink()
        raise origin.unavailable(f"{file.path} arrived damaged: its hash is not the one that was announced")
    arriving.rename(target)


def _is_right(path: Path, file: FileReference, between: Callable[[], None]) -> bool:
    """Return whether the file has its size and hash: SHA-256, or git's SHA-1 of a header and the content."""
    if path.stat().st_size != file.bytes:
        return False
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.bytes, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            between()
            digest.update(chunk)
    return digest.hexdigest() == (file.sha256 or file.git_blob)


def require_readable(hub: Hub, kind: Kind, repository: str, commit: str, *, timeout_seconds: float) -> None:
    """Ask the hub whether the repository may be read, until it answers or `timeout_seconds` are over.

    Raises the errors of `Hub.listing`.
    """
    since, wait = time.monotonic(), 0.25
    while True:
        try:
            hub.listing(kind, repository, commit)
            return
        except HubUnavailable:
            if time.monotonic() + wait > since + timeout_seconds:
                raise
        time.sleep(wait)
        wait = min(2 * wait, 10.0)


def from_hub(hub: Hub, kind: Kind, repository: str, commit: str, *, timeout_seconds: float) -> Origin:
    """Return the hub as an origin; broken connections are resumed until `timeout_seconds` pass without data."""

    def open_range(file: FileReference, start: int) -> Iterator[bytes]:
        return hub.open_range(kind, repository, commit, file.path, start, file.bytes)

    return resuming(open_range, HubUnavailable, source="the hub", timeout_seconds=timeout_seconds, param=kind)


def resuming(
    open_range: OpenRange,
    unavailable: type[Unavailable],
    *,
    source: str,
    timeout_seconds: float,
    param: str | None = None,
) -> Origin:
    """Return an origin that reopens a file where it broke off, until `timeout_seconds` pass without data.

    Errors of the type `unavailable` are retried; `source` and `param` are for the error about incomplete files.
    """

    def fetch(file: FileReference, path: Path, between: Callable[[], None]) -> None:
        since, wait = time.monotonic(), 0.25
        with translate_disk_full(), path.open("ab") as target:
            if target.tell() > file.bytes:  # the partial file belongs to other content
                target.truncate(0)
            while (start := target.tell()) < file.bytes:
                error = unavailable(f"{source} sends less of {file.path} than it announced", param=param)
                try:
                    for chunk in open_range(file, start):
                        between()
                        target.write(chunk)
                except unavailable as broken:
                    error = broken
                target.flush()
                if target.tell() > start:
                    since, wait = time.monotonic(), 0.25
                elif time.monotonic() + wait > since + timeout_seconds:
                    raise error
                else:
                    time.sleep(wait)
                    wait = min(2 * wait, 10.0)

    return Origin(fetch, unavailable)


@contextmanager
def _progress(files: Sequence[FileReference], folder: Path, what: str, log: Log) -> Iterator[None]:
    """Report at intervals, while the context is open, how many bytes have arrived."""
    total = sum(file.bytes for file in files)
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(PROGRESS_SECONDS):
            arrived = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            log(f"fetching {what}: {arrived / 1e9:.2f} of {total / 1e9:.2f} GB")

    teller = threading.Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def from_store(store: Store, prefix: str) -> Origin:
    def fetch(file: FileReference, path: Path, between: Callable[[], None]) -> None:
        try:
            store.fetch(prefix, file.path, path, watch=between)
        except NotFound as error:
            raise UnusableModel(f"{file.path} is no longer in the store") from error

    return Origin(fetch, StoreUnavailable)
