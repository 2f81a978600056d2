"""An object on its way into a bucket."""

import contextlib

from botocore.exceptions import ClientError
from s3fs import S3FileSystem

from core.storage.s3_errors import UNREACHABLE, error_code, translate_errors

LEAST_PART_BYTES = 5 * 2**20
"""Smallest part, in bytes, that S3 joins, the last excepted."""
_IS_THERE = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_NO_CONDITIONS = ("NotImplemented", "501")


def create_object(files: S3FileSystem, path: str, content: bytes) -> None:
    """Write an object unless it is there. Raises StoreUnavailable and DiskFull.

    Some services know no conditions: one refuses them, and another takes no notice, so that of two writers at once the
    second counts. Whoever needs to know reads the object again.
    """
    bucket, _, key = path.partition("/")
    with translate_errors():
        try:
            files.call_s3("put_object", Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
        except (ClientError, OSError) as error:
            code = error_code(error)
            if code in _NO_CONDITIONS:
                files.call_s3("put_object", Bucket=bucket, Key=key, Body=content)
            elif code not in _IS_THERE:
                raise


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
