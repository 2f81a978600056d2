"""Downloads of artifact files: continued after an interruption, and renamed to their final names after a check."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from io import BufferedRandom
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final
from urllib.parse import quote

import httpx

from secateur.errors import (
    ChecksumMismatch,
    DownloadError,
    DownloadInterrupted,
    ServerError,
    UnexpectedAnswer,
    Unreachable,
    UnsafeName,
)
from secateur.transport import Transport
from secateur_wire.jobs import ArtifactFile
from secateur_wire.metrics import ExportedFile

MANIFEST: Final = "secateur.json"
"""File that is downloaded last: a folder that has it is complete."""
FRUITLESS_ATTEMPTS: Final = 5
"""Number of consecutive connections without a byte after which the client gives up."""
RETRY_SECONDS: Final = 1.0

_SHA256: Final = re.compile(r"[0-9a-f]{64}")

OnProgress = Callable[[ArtifactFile, int], None]


def download_files(
    transport: Transport, path: str, files: Sequence[ArtifactFile], folder: Path, on_progress: OnProgress
) -> list[Path]:
    """Fetch `path`/<name> for each file into `folder`. Every name is checked before the first byte is written.

    Raises UnsafeName, ChecksumMismatch and DownloadInterrupted.
    """
    ordered = sorted(files, key=lambda file: (file.path == MANIFEST, file.path))
    targets = [_target(folder, file.path) for file in ordered]
    for file, target in zip(ordered, targets, strict=True):
        if _is_here(target, file):
            on_progress(file, file.bytes)
        else:
            _fetch(transport, f"{path}/{quote(file.path)}", file, target, on_progress)
    return targets


def added_files(exports: Sequence[ExportedFile], format: str, types: Sequence[str] | None) -> set[str]:
    """Return the names of the files of a form, of all its types or of the wanted ones, and of the files they need.

    Raises DownloadError that lists the existing ones where one is missing.
    """
    files = {each.type: {each.file, *each.needs} for each in exports if each.format == format}
    missing = [each for each in types or () if each not in files]
    if files and not missing:
        return {name for kind, names in files.items() if not types or kind in types for name in names}
    available: dict[str, list[str]] = {}
    for each in exports:
        available.setdefault(each.format, []).append(each.type)
    has = "; ".join(f"{form} of {', '.join(kinds)}" for form, kinds in available.items()) or "no added files"
    wanted = f"{format} of {missing[0]}" if files else f"{format} file"
    raise DownloadError(
        f"the job has no {wanted}; it has {has}: ask for what it has, or submit a job with "
        f"output.exports (--export {format}:{','.join(types or ['TYPE'])})"
    )


def _target(folder: Path, name: str) -> Path:
    """Return the path for a file. Raises UnsafeName unless it is within the folder after following links."""
    parts = name.split("/")
    unsafe = {"", ".", ".."} & set(parts) or PureWindowsPath(name).drive or "\\" in name or not name.isprintable()
    target = folder.joinpath(*PurePosixPath(name).parts)
    if unsafe or PurePosixPath(name).is_absolute() or not target.parent.resolve().is_relative_to(folder.resolve()):
        raise UnsafeName(f"the server lists a file named {name!r}, which leads out of {folder}: nothing was written")
    return target


def _is_here(target: Path, file: ArtifactFile) -> bool:
    if target.is_symlink() or not target.is_file() or target.stat().st_size != file.bytes:
        return False
    with open(target, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256


def _fetch(transport: Transport, path: str, file: ArtifactFile, target: Path, on_progress: OnProgress) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # The name contains the hash: a part is only ever continued with bytes of the same file.
    part_file = target.with_name(f".{target.name}.{file.sha256[:16]}.part")
    fruitless = 0
    with open(part_file, "a+b") as part:
        while (received := part.seek(0, os.SEEK_END)) < file.bytes:
            try:
                _receive(transport, path, file, part, on_progress)
            except (httpx.TransportError, Unreachable, ServerError) as error:
                fruitless = 0 if part.seek(0, os.SEEK_END) > received else fruitless + 1
                if fruitless == FRUITLESS_ATTEMPTS:
                    reason = transport.unreachable(error) if isinstance(error, httpx.TransportError) else error
                    raise DownloadInterrupted(
                        f"{file.path}: {received} of {file.bytes} bytes are here, then no more came ({reason}); the "
                        "same download again goes on from there"
                    ) from error
                time.sleep(RETRY_SECONDS if fruitless else 0)
        digest = _settled(part)
    if received != file.bytes or digest != file.sha256:
        part_file.unlink()
        raise ChecksumMismatch(
            f"{file.path}: the {received} bytes that arrived have SHA-256 {digest}, but the server lists "
            f"{file.bytes} bytes with {file.sha256}. They were deleted: download again"
        )
    part_file.replace(target)
    on_progress(file, file.bytes)


def _settled(part: BufferedRandom) -> str:
    """Flush everything to disk and return the SHA-256."""
    part.flush()
    os.fsync(part.fileno())
    part.seek(0)
    return hashlib.file_digest(part, "sha256").hexdigest()


def _receive(
    transport: Transport, path: str, file: ArtifactFile, part: BufferedRandom, on_progress: OnProgress
) -> None:
    """Append the bytes of one connection to the file, or start again where the server sends the whole file."""
    received = part.seek(0, os.SEEK_END)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={received}-"} if received else {})
    with transport.stream(path, headers=headers, follow_redirects=True) as response:
        _check_same_file(response, file)
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {received}-"):
                raise UnexpectedAnswer(
                    f"{file.path}: bytes from {received} on were asked for, the answer is "
                    f"{response.headers.get('Content-Range')!r}"
                )
        else:
            received = 0
            part.truncate(0)
        for chunk in response.iter_bytes():
            part.write(chunk)
            received += len(chunk)
            on_progress(file, received)
            if received > file.bytes:
                return  # It is too long already: the size check reports it, and no disk is filled.
        if received < file.bytes:
            raise httpx.RemoteProtocolError("the file ended early")


def _check_same_file(response: httpx.Response, file: ArtifactFile) -> None:
    """Require the listed file. Raises ChecksumMismatch where the ETag is another SHA-256.

    The ETag of this service is the SHA-256. A bucket behind a redirect has other ETags, which are ignored.
    """
    etag = response.headers.get("ETag", "").strip('"')
    if _SHA256.fullmatch(etag) and etag != file.sha256:
        raise ChecksumMismatch(
            f"{file.path} is now {etag}, but the list said {file.sha256}: the job was run again in the meantime; "
            "download again"
        )
