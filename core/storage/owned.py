"""Owner of a store: the only installation that may write to it, named by a mark in the store itself.

Two installations on one store would each remove the other's models, because no row of their own database names them.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog

from core.storage.store import Incoming, Store, StoredFile, Unfinished, UploadPart, Usage, Watch
from secateur_wire.errors import DiskFull, NotFound, StoreOfAnother, StoreUnavailable

MARK_PREFIX, MARK_FILE = "owner", "installation"
_LONGEST_ID = 200
_MARK_VALID_SECONDS = 60.0

logger = structlog.get_logger()


def find_owner(store: Store) -> str | None:
    """Return the id of the installation that the store is marked with; None without a mark."""
    try:
        return b"".join(store.open_range(MARK_PREFIX, MARK_FILE, 0, _LONGEST_ID)).decode(errors="replace").strip()
    except NotFound:
        return None


def require_owner(store: Store, installation: str) -> None:
    """Mark an unmarked store as this installation's.

    Raises StoreOfAnother if the mark names another installation, and StoreUnavailable. If two installations open a new
    store at the same time, one of them gets it.
    """
    owner = find_owner(store)
    if owner is None:
        store.create(MARK_PREFIX, MARK_FILE, installation.encode())
        owner = find_owner(store)
    if owner != installation:
        raise StoreOfAnother(
            f"the store belongs to installation {owner}, but this database belongs to installation {installation}: "
            "give this installation its own store, SECATEUR_STORE_URL=s3://BUCKET/PREFIX for a bucket or "
            "SECATEUR_HOME for a folder; `secateur store take-over` takes the store over, if the other "
            "installation is gone for good"
        )


def take_over(store: Store, installation: str) -> str | None:
    """Mark the store as this installation's, whoever owned it; return the previous owner. Raises StoreUnavailable."""
    before = find_owner(store)
    store.delete(MARK_PREFIX)
    require_owner(store, installation)
    return before


class OwnedStore:
    """Store as one installation uses it: a store that another installation owns can be read, but not changed.

    Before a change the mark is read, at most once a minute, and written if there is none. Methods that write or remove
    raise StoreOfAnother besides the errors of `Store`.
    """

    def __init__(self, store: Store, find_installation: Callable[[], str]) -> None:
        """Wrap a store; `find_installation` returns the id of this installation or raises StoreUnavailable."""
        self._store, self._find_installation = store, find_installation
        self._lock = threading.Lock()
        self._required_at: float | None = None
        self.refused: str | None = None
        """Reason why nothing may be written, as it was known last."""

    def require_own(self) -> None:
        """Raise StoreOfAnother if another installation owns the store, and StoreUnavailable if it cannot be reached."""
        with self._lock:
            if self._required_at is not None and time.monotonic() < self._required_at + _MARK_VALID_SECONDS:
                return
            try:
                require_owner(self._store, self._find_installation())
            except StoreOfAnother as error:
                if self.refused is None:
                    logger.error("nothing is written to the store", reason=error.message)
                self._required_at, self.refused = None, error.message
                raise
            self._required_at, self.refused = time.monotonic(), None

    def refusal(self) -> str | None:
        """Return the reason why nothing may be written; None if writing is allowed, or the store cannot be reached.

        A store that was this installation's is not read again: its next write does that.
        """
        if self._required_at is None:
            self.is_usable()
        return self.refused

    def is_usable(self) -> bool:
        if not self._store.is_usable():
            return False
        try:
            self.require_own()
        except (StoreUnavailable, DiskFull):
            return False
        return True

    def publish(self, folder: Path, prefix: str, *, watch: Watch | None = None) -> list[StoredFile]:
        self.require_own()
        return self._store.publish(folder, prefix, watch=watch)

    def folder(self, prefix: str) -> Path | None:
        return self._store.folder(prefix)

    def open_range(self, prefix: str, path: str, start: int, end: int) -> Iterator[bytes]:
        return self._store.open_range(prefix, path, start, end)

    def fetch(self, prefix: str, path: str, target: Path, *, watch: Watch | None = None) -> None:
        self._store.fetch(prefix, path, target, watch=watch)

    def presigned(self, prefix: str, path: str, filename: str) -> str | None:
        return self._store.presigned(prefix, path, filename)

    def delete(self, prefix: str) -> None:
        self.require_own()
        self._store.delete(prefix)

    def create(self, prefix: str, path: str, content: bytes) -> None:
        self.require_own()
        self._store.create(prefix, path, content)

    def incoming(self, prefix: str, path: str) -> Incoming:
        self.require_own()
        return self._store.incoming(prefix, path)

    def join(self, prefix: str, parts: Sequence[UploadPart], target: str, path: str) -> None:
        self.require_own()
        self._store.join(prefix, parts, target, path)

    def children(self, prefix: str | None = None) -> Iterator[str]:
        return self._store.children(prefix)

    def usage(self, prefix: str) -> Usage | None:
        return self._store.usage(prefix)

    def unfinished(self) -> Iterator[Unfinished]:
        self.require_own()
        return self._store.unfinished()
