"""Publication to an owner's bucket, with the owner's keys and none of the machine's.

Each file appears whole or not at all, with its SHA-256 in the object's metadata (`sha256`). A repeated publication uses
it to find which files have arrived. An old manifest is deleted first and the new one is written last: while files
change, the folder there is not a valid artifact.
"""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, NoReturn

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError
from s3fs import S3FileSystem

from core.service.publications.destinations import S3Destination
from core.service.publications.lease import PublicationLease
from core.service.publications.queue import PublishedFile
from core.service.publications.reading import StoredArtifact, chunks, watched
from core.storage import MANIFEST, is_disk_full
from core.storage.s3_session import new_session
from secateur_wire.errors import DestinationRefused, DestinationUnavailable, DiskFull

_WRITE_BYTES = 16 * 2**20
"""Bytes of one request, held in memory: a part of a file, or all of a small one."""
_MOST_PARTS = 10_000
_SHA256 = "sha256"

_FULL = 507
"""Status of services that store on their own disks when those are full."""
_BAD_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidClientTokenId", "AuthFailure")
_OLD_KEYS = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired")
_FORBIDDEN = ("AccessDenied", "AllAccessDisabled", "403", "Forbidden")
_ELSEWHERE = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301")


def publish_to_s3(
    artifact: StoredArtifact, destination: S3Destination, *, credentials: dict[str, str], lease: PublicationLease
) -> dict[str, Any]:
    """Publish an artifact; return its address.

    Raises DestinationRefused, DestinationUnavailable, DiskFull, the errors of the store, and LostError.
    """
    with _opened(destination, credentials) as bucket:
        try:
            ordered = sorted(artifact.files, key=lambda file: (file.path == MANIFEST, file.path))
            present = [_is_there(bucket, destination, file) for file in ordered]
            if not all(present) and _size(bucket, destination, MANIFEST) is not None:
                bucket.call_s3("delete_object", Bucket=destination.bucket, Key=_key(destination, MANIFEST))
                present[-1] = ordered[-1].path != MANIFEST and present[-1]
            done = 0
            for number, (file, is_there) in enumerate(zip(ordered, present, strict=True)):
                if not is_there:
                    with watched(artifact, file, partial(_report, lease, number, done)) as stream:
                        _send(bucket, destination, file, stream, lease)
                done += file.bytes
                lease.at(number + 1, done)
        except (OSError, BotoCoreError, ClientError, aiohttp.ClientError) as error:
            _raise_translated(error, destination)
    return {"url": destination.to, "commit": None}


@contextmanager
def _opened(destination: S3Destination, credentials: dict[str, str]) -> Iterator[Any]:
    """Open the bucket's service. Key and secret are always given: otherwise the library would use the machine's."""
    files = S3FileSystem(
        session=new_session(),
        key=credentials["access_key"],
        secret=credentials["secret_key"],
        token=credentials.get("session_token"),
        endpoint_url=destination.endpoint,
        client_kwargs={"region_name": destination.region} if destination.region else {},
        config_kwargs={
            "signature_version": "s3v4",
            "connect_timeout": 5,
            "read_timeout": 60,
            "retries": {"mode": "standard", "total_max_attempts": 3},
            "s3": {"addressing_style": "path" if destination.endpoint else "auto"},
        },
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    try:
        yield files
    finally:
        if files._s3 is not None:
            with contextlib.suppress(Exception):  # A failed close is harmless: the publication is over.
                files.close_session(files.loop, files._s3)


def _key(destination: S3Destination, path: str) -> str:
    return f"{destination.prefix}/{path}".lstrip("/")


def _head(bucket: Any, destination: S3Destination, path: str) -> dict[str, Any] | None:
    """Return the metadata of a file; None where it does not exist, or where the key may write and not read."""
    try:
        head: dict[str, Any] = bucket.call_s3("head_object", Bucket=destination.bucket, Key=_key(destination, path))
    except (FileNotFoundError, PermissionError):
        return None
    return head


def _size(bucket: Any, destination: S3Destination, path: str) -> int | None:
    head = _head(bucket, destination, path)
    return None if head is None else int(head["ContentLength"])


def _is_there(bucket: Any, destination: S3Destination, file: PublishedFile) -> bool:
    head = _head(bucket, destination, file.path)
    return (
        head is not None
        and head["ContentLength"] == file.bytes
        and head.get("Metadata", {}).get(_SHA256) == file.sha256
    )


def _report(lease: PublicationLease, number: int, done: int, place: int) -> None:
    """Report the progress: `done` bytes of whole files, and `place` bytes of the next."""
    lease.at(number, done + place)


def _send(
    bucket: Any, destination: S3Destination, file: PublishedFile, stream: BinaryIO, lease: PublicationLease
) -> None:
    key = _key(destination, file.path)
    metadata = {_SHA256: file.sha256}
    if file.bytes <= _WRITE_BYTES:
        content = b"".join(chunks(stream, file))
        bucket.call_s3("put_object", Bucket=destination.bucket, Key=key, Body=content, Metadata=metadata)
        return
    target = bucket.open(
        f"{destination.bucket}/{key}",
        "wb",
        block_size=max(_WRITE_BYTES, -(-file.bytes // _MOST_PARTS)),
        autocommit=False,
        Metadata=metadata,
    )
    try:
        for chunk in chunks(stream, file):
            target.write(chunk)
        target.close()
        lease.check()
        target.commit()
    except BaseException:
        with contextlib.suppress(Exception):  # This removes the sent parts; the original error is raised in any case.
            target.discard()
        raise


def _raise_translated(error: BaseException, destination: S3Destination) -> NoReturn:
    """Raise the error of this service for one of S3. Only its code is used: its messages quote sent data."""
    at: BaseException | None = error
    while at is not None and not isinstance(at, ClientError):
        at = at.__cause__
    code = "" if at is None else str(at.response.get("Error", {}).get("Code", ""))
    bucket = destination.bucket
    if code in _BAD_KEYS:
        raise DestinationRefused("S3 does not accept access_key and secret_key", param="access_key") from None
    if code in _OLD_KEYS:
        raise DestinationRefused("S3 does not accept session_token: it has expired", param="session_token") from None
    if code in _FORBIDDEN:
        raise DestinationRefused(
            f"the key may not write to {destination.to}: it needs s3:PutObject there, and s3:DeleteObject for what is "
            "replaced",
            param="access_key",
        ) from None
    if code in ("NoSuchBucket", "404"):
        raise DestinationRefused(f"there is no bucket {bucket!r}", param="to") from None
    if code in _ELSEWHERE:
        raise DestinationRefused(f"bucket {bucket!r} is in another region: give its region", param="region") from None
    if is_disk_full(error):
        raise DiskFull("no space is left on the disk of the machine that publishes") from None
    if at is not None and at.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == _FULL:
        raise DestinationUnavailable(f"bucket {bucket!r} has no space left", param="to") from None
    if isinstance(error, OSError | BotoCoreError | aiohttp.ClientError | ClientError):
        raise DestinationUnavailable(
            f"bucket {bucket!r} cannot be reached, or broke off ({code or type(error).__name__})", param="to"
        ) from None
    raise error
