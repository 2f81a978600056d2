"""Store in a bucket of an S3-compatible service, through s3fs."""

import asyncio
import concurrent.futures
import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError
from s3fs import S3FileSystem

from core.settings import Settings
from core.storage.s3_session import new_session
from core.storage.store import (
    MANIFEST,
    STORE_SECONDS,
    StoredFile,
    Unfinished,
    UploadPart,
    Usage,
    Watch,
    attachment,
    checked,
    fetch_resuming,
    hash_file,
    missing,
    publishable,
)
from secateur_wire.errors import DiskFull, StoreUnavailable

_UNREACHABLE = (OSError, BotoCoreError, ClientError, aiohttp.ClientError, concurrent.futures.CancelledError)
_AT_ONCE = 4
_READ_BYTES = 8 * 2**20
"""Bytes of one request; `_AT_ONCE` requests are sent, and held in memory, at the same time."""
_WRITE_BYTES = 16 * 2**20
_LEAST_PART_BYTES = 5 * 2**20
"""Smallest size in bytes of the parts that S3 joins; the last part may be smaller."""
_MOST_PARTS = 10_000
_WATCH_SECONDS = 0.5
_PROBE_SECONDS = 4.0
_EXISTS_CODES = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_NO_CONDITIONS = ("NotImplemented", "501")


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """Translate the library's errors into StoreUnavailable and DiskFull."""
    try:
        yield
    except _UNREACHABLE as error:
        raise _unavailable(error) from error


def _error_code(error: BaseException) -> str:
    """Return the error code of the service; empty if it sent none."""
    response = getattr(error.__cause__ or error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _unavailable(error: BaseException) -> StoreUnavailable | DiskFull:
    response = getattr(error.__cause__ or error, "response", None)
    if isinstance(response, dict) and response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 507:
        return DiskFull(f"the store has no space left: {error}")
    return StoreUnavailable(f"the store cannot be used right now: {type(error).__name__}: {str(error)[:300]}")


class S3Store:
    """Store in a bucket: objects appear complete or not at all, and the manifest of a published folder appears last.

    The library's file system, with its connections and its event loop, is created at first use in each process, so that
    a forked process does not share them.
    """

    def __init__(self, settings: Settings) -> None:
        """Read bucket and prefix from the store's URL; raises ValueError if it is not s3://bucket[/prefix]."""
        url = urlsplit(settings.store_url or "")
        self._bucket, self._base = url.netloc, url.path.strip("/")
        if url.scheme != "s3" or not self._bucket:
            raise ValueError(f"SECATEUR_STORE_URL {settings.store_url!r} is not s3://bucket or s3://bucket/prefix")
        if self._base:
            checked(self._base)
        self._settings = settings
        self._file_systems: dict[tuple[int, str | None], S3FileSystem] = {}

    def is_usable(self) -> bool:
        try:
            self._run(self._files(), "call_s3", "head_bucket", Bucket=self._bucket, seconds=_PROBE_SECONDS)
        except _UNREACHABLE:
            return False
        return True

    def make_bucket(self) -> bool:
        """Create the bucket if it cannot be used; return whether it was created. Raises StoreUnavailable."""
        if self.is_usable():
            return False
        region = self._settings.store_region
        where: dict[str, Any] = (
            {} if region in (None, "us-east-1") else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        )
        try:
            self._call("call_s3", "create_bucket", Bucket=self._bucket, **where)
        except StoreUnavailable:
            if not self.is_usable():  # otherwise another process has just created it
                raise
        return True

    def folder(self, prefix: str) -> None:
        return None

    def publish(self, folder: Path, prefix: str, *, watch: Watch | None = None) -> list[StoredFile]:
        names = publishable(folder)
        self.delete(prefix)
        try:
            stored = [self._upload(folder / name, prefix, name, watch) for name in names]
        except BaseException:
            with contextlib.suppress(StoreUnavailable):  # the sweep of orphans removes it later
                self.delete(prefix)
            raise
        return sorted(stored, key=lambda each: each.path)

    def open_range(self, prefix: str, path: str, start: int, end: int) -> Iterator[bytes]:
        size = self._size(prefix, path)
        return self._chunks(self._path(prefix, path), start, min(end, size))

    def fetch(self, prefix: str, path: str, target: Path, *, watch: Watch | None = None) -> None:
        size = self._size(prefix, path)
        source = self._path(prefix, path)
        fetch_resuming(lambda start: self._chunks(source, start, size, watch), size, target, watch)

    def presigned(self, prefix: str, path: str, filename: str) -> str | None:
        seconds = self._settings.presigned_seconds
        if seconds <= 0:
            return None
        endpoint = self._settings.store_public_endpoint or self._settings.store_endpoint
        url: str = self._call(
            "url",
            self._path(prefix, path),
            expires=seconds,
            files=self._files(endpoint),
            ResponseContentDisposition=attachment(filename),
            ResponseContentType="application/octet-stream",
        )
        return url

    def delete(self, prefix: str) -> None:
        below = self._key(prefix) + "/"
        keys = [f"{self._bucket}/{item['Key']}" for page in self._list(below) for item in page.get("Contents", [])]
        keys.sort(key=lambda key: not key.endswith(f"/{MANIFEST}"))  # a folder without a manifest is not an artifact
        keys.append(f"{self._bucket}/{self._key(prefix)}")
        for first in range(0, len(keys), 1000):
            self._call("bulk_delete", keys[first : first + 1000])
        for each in self._multipart_uploads(below):
            each.discard()

    def create(self, prefix: str, path: str, content: bytes) -> None:
        _create_object(self._files(), self._path(prefix, path), content)

    def incoming(self, prefix: str, path: str) -> "_Incoming":
        return _Incoming(self._files(), self._path(prefix, path))

    def join(self, prefix: str, parts: Sequence[UploadPart], target: str, path: str) -> None:
        sources = [self._path(prefix, part.path) for part in parts]
        joined = self._path(target, path)
        if not parts:
            self._call("pipe_file", joined, b"")
        elif len(parts) <= _MOST_PARTS and all(part.bytes >= _LEAST_PART_BYTES for part in parts[:-1]):
            self._call("merge", joined, sources)
        else:
            self._rewrite(sources, [part.bytes for part in parts], joined)

    def children(self, prefix: str | None = None) -> Iterator[str]:
        below = f"{self._key(prefix) if prefix else self._base}/".lstrip("/")
        for page in self._list(below, Delimiter="/"):
            yield from (item["Prefix"][len(below) : -1] for item in page.get("CommonPrefixes", []))

    def usage(self, prefix: str) -> Usage | None:
        items = [item for page in self._list(self._key(prefix) + "/") for item in page.get("Contents", [])]
        return Usage(sum(i["Size"] for i in items), max(i["LastModified"] for i in items)) if items else None

    def unfinished(self) -> Iterator[Unfinished]:
        return self._multipart_uploads(f"{self._base}/".lstrip("/"))

    def _upload(self, file: Path, prefix: str, name: str, watch: Watch | None) -> StoredFile:
        size, sha256 = hash_file(file, watch)
        self._call(
            "put_file",
            str(file),
            self._path(prefix, name),
            chunksize=max(_WRITE_BYTES, -(-size // _MOST_PARTS)),
            max_concurrency=_AT_ONCE,
            watch=watch,
        )
        return StoredFile(name, size, sha256)

    def _rewrite(self, sources: Sequence[str], sizes: Sequence[int], joined: str) -> None:
        """Join parts that are too small for S3 to join, by downloading and writing them again."""
        file = _Incoming(self._files(), joined, _WRITE_BYTES)
        try:
            for source, size in zip(sources, sizes, strict=True):
                for chunk in self._chunks(source, 0, size):
                    file.write(chunk)
            file.finish()
        finally:
            file.discard()

    def _size(self, prefix: str, path: str) -> int:
        try:
            key = f"{self._key(prefix)}/{checked(path)}"
            head = self._run(self._files(), "call_s3", "head_object", Bucket=self._bucket, Key=key)
            return int(head["ContentLength"])
        except (ValueError, FileNotFoundError):
            raise missing(path) from None
        except _UNREACHABLE as error:
            raise _unavailable(error) from error

    def _chunks(self, source: str, start: int, end: int, watch: Watch | None = None) -> Iterator[bytes]:
        while start < end:
            starts = list(range(start, end, _READ_BYTES))[:_AT_ONCE]
            ends = [min(each + _READ_BYTES, end) for each in starts]
            chunks: list[bytes] = self._call(
                "cat_ranges", [source] * len(starts), starts, ends, on_error="raise", watch=watch
            )
            if sum(map(len, chunks)) != ends[-1] - start:
                raise StoreUnavailable("a file in the store has become shorter")
            yield from chunks
            start = ends[-1]

    def _list(self, below: str, **options: Any) -> Iterator[dict[str, Any]]:
        """Yield pages of at most a thousand objects."""
        while True:
            page = self._call("call_s3", "list_objects_v2", Bucket=self._bucket, Prefix=below, **options)
            yield page
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def _multipart_uploads(self, below: str) -> Iterator[Unfinished]:
        options: dict[str, Any] = {}
        while True:
            page = self._call("call_s3", "list_multipart_uploads", Bucket=self._bucket, Prefix=below, **options)
            for each in page.get("Uploads", []):
                yield self._unfinished(each["Key"], each["UploadId"], each["Initiated"])
            if not page.get("IsTruncated"):
                return
            options = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _unfinished(self, key: str, upload_id: str, initiated: datetime) -> Unfinished:
        def discard() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._run(self._files(), "abort_mpu", self._bucket, key, upload_id)

        below = key.removeprefix(f"{self._base}/")
        return Unfinished("/".join(below.split("/")[:2]), initiated, discard)

    def _key(self, prefix: str) -> str:
        return f"{self._base}/{checked(prefix)}".lstrip("/")

    def _path(self, prefix: str, path: str) -> str:
        return f"{self._bucket}/{self._key(prefix)}/{checked(path)}"

    def _files(self, endpoint: str | None = None) -> S3FileSystem:
        """Return the S3 file system of this process; `endpoint` replaces the store's own, for URLs given to others."""
        settings = self._settings
        which = (os.getpid(), endpoint or settings.store_endpoint)
        if which not in self._file_systems:
            secret = settings.store_secret_key
            self._file_systems.setdefault(
                which,
                S3FileSystem(
                    session=new_session(),
                    key=settings.store_access_key,
                    secret=None if secret is None else secret.get_secret_value(),
                    endpoint_url=which[1],
                    client_kwargs={"region_name": settings.store_region} if settings.store_region else {},
                    config_kwargs={
                        "signature_version": "s3v4",
                        "connect_timeout": 3,
                        "read_timeout": 60,
                        "retries": {"mode": "standard", "total_max_attempts": 3},
                        "s3": {"addressing_style": "path" if which[1] else "auto"},
                    },
                    use_listings_cache=False,
                    skip_instance_cache=True,
                ),
            )
        return self._file_systems[which]

    def _call(
        self,
        method: str,
        *arguments: Any,
        watch: Watch | None = None,
        files: S3FileSystem | None = None,
        **options: Any,
    ) -> Any:
        """Run one operation of the library; raises StoreUnavailable, DiskFull, and errors of `watch`."""
        with _translate_errors():
            return self._run(files or self._files(), method, *arguments, watch=watch, **options)

    @staticmethod
    def _run(
        files: S3FileSystem,
        method: str,
        *arguments: Any,
        watch: Watch | None = None,
        seconds: float | None = None,
        **options: Any,
    ) -> Any:
        """Run a coroutine of the library in its event loop thread; `method` is its name without the underscore."""
        operation = arguments[0] if method == "call_s3" else method.removeprefix("_")
        with STORE_SECONDS.labels(operation).time():
            future = asyncio.run_coroutine_threadsafe(getattr(files, f"_{method}")(*arguments, **options), files.loop)
            try:
                while watch is not None:
                    done, _ = concurrent.futures.wait([future], timeout=_WATCH_SECONDS)
                    if done:
                        break
                    watch()
                return future.result(seconds)
            finally:
                future.cancel()


def _create_object(files: S3FileSystem, path: str, content: bytes) -> None:
    """Write an object unless it exists; raises StoreUnavailable and DiskFull.

    Some services do not support conditions. One of them refuses the request. Another ignores the condition: if two
    writers run at the same time, the second wins. A caller that has to know reads the object again.
    """
    bucket, _, key = path.partition("/")
    with _translate_errors():
        try:
            files.call_s3("put_object", Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
        except (ClientError, OSError) as error:
            code = _error_code(error)
            if code in _NO_CONDITIONS:
                files.call_s3("put_object", Bucket=bucket, Key=key, Body=content)
            elif code not in _EXISTS_CODES:
                raise


class _Incoming:
    """Object that is sent in parts of `block_bytes`, or as one request if it is smaller."""

    def __init__(self, files: S3FileSystem, path: str, block_bytes: int = _LEAST_PART_BYTES) -> None:
        self._file = files.open(path, "wb", block_size=block_bytes)
        self._is_finished = False

    def write(self, chunk: bytes) -> None:
        with _translate_errors():
            self._file.write(chunk)

    def finish(self) -> None:
        with _translate_errors():
            self._file.close()
        self._is_finished = True

    def discard(self) -> None:
        if not self._is_finished:
            self._file.closed = True  # otherwise the library would finish the file when it is garbage-collected
            with contextlib.suppress(*_UNREACHABLE):  # the sweep of orphans removes it later
                self._file.discard()
