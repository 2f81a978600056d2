"""Seekable stream of a stored file, without a copy of it on this machine."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from core.storage.store import Store

_BUFFER_BYTES = 8 * 2**20


class StoredStream(io.RawIOBase):
    """Unbuffered stream: every read is a request to the store; raises the errors of `Store.open_range`."""

    def __init__(self, store: Store, prefix: str, path: str, size: int) -> None:
        self._store, self._prefix, self._path, self._size = store, prefix, path, size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        end = min(self._place + len(buffer), self._size)
        if end <= self._place:
            return 0
        content = b"".join(self._store.open_range(self._prefix, self._path, self._place, end))
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)


@contextmanager
def open_stored(store: Store, prefix: str, path: str, size: int) -> Iterator[BinaryIO]:
    """Open a stored file of `size` bytes, buffered; reading it raises the errors of `Store.open_range`."""
    with io.BufferedReader(StoredStream(store, prefix, path, size), _BUFFER_BYTES) as stream:
        yield stream
