"""An object on its way into a bucket."""

import contextlib

from s3fs import S3FileSystem

from core.storage.s3_errors import UNREACHABLE, translate_errors

LEAST_PART_BYTES = 5 * 2**20
"""Smallest part, in bytes, that S3 joins, the last excepted."""


class S3Incoming:
    """An object that is sent in parts of `block_bytes`, as one request where it is smaller."""

    def __init__(self, files: S3FileSystem, path: str, block_bytes: int = LEAST_PART_BYTES) -> None:
        self._file = files.open(path, "wb", block_size=block_bytes)
        self._is_finished = False

    def write(self, chunk: bytes) -> None:
        with translate_errors():
            self._file.write(chunk)

    def finish(self) -> None:
        with translate_errors():
            self._file.close()
        self._is_finished = True

    def discard(self) -> None:
        if not self._is_finished:
            self._file.closed = True  # else the library would finish it once nobody holds it any more
            with contextlib.suppress(*UNREACHABLE):  # then the sweep of orphans does it
                self._file.discard()
