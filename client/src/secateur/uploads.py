"""Uploads of models and texts from this machine: hashed, sent in parts, continued after an interruption."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal
from urllib.parse import quote

from pydantic import JsonValue

from secateur.errors import (
    ApiError,
    OffsetMismatch,
    ServerError,
    TooManyRequests,
    Unreachable,
    UploadError,
    UploadInterrupted,
)
from secateur.transport import Transport, segment
from secateur_wire.uploads import ReceivedPart, Upload, UploadedFile

FRUITLESS_ATTEMPTS: Final = 3
"""Number of consecutive parts without a received byte, each repeated by the transport, before the client gives up."""
_HASHED_AT_ONCE: Final = 8 * 2**20

_MODEL_FILES: Final = re.compile(
    r"(generation_)?config\.json|tokenizer(_config)?\.json|tokenizer\.model|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.(json|txt)|merges\.txt|spiece\.model|chat_template\.(jinja|json)"
    r"|((video_)?pre)?processor_config\.json|provenance\.intoto\.jsonl"
    r"|model\.safetensors\.index\.json|[A-Za-z0-9][A-Za-z0-9._-]{0,199}\.safetensors"
)
"""Files of a model folder that the server accepts: config, tokenizer, safetensors, and the signed statement.

Code and pickles are not sent."""


@dataclass(frozen=True)
class UploadProgress:
    """Progress of hashing or sending the file at `path`: `done` of `total` bytes."""

    path: str
    doing: Literal["hashing", "sending"]
    done: int
    total: int


OnUpload = Callable[[UploadProgress], None]


def model_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the files of a model folder to upload, by name, and the names of the other files.

    Raises UploadError where there is no model.
    """
    if not folder.is_dir():
        raise UploadError(f"{folder} is not a folder; name the one that holds config.json and the safetensors files")
    files: dict[str, Path] = {}
    others: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and _MODEL_FILES.fullmatch(path.name):
            files[path.name] = path
        else:
            others.append(path.name)
    if "config.json" not in files or not any(name.endswith(".safetensors") for name in files):
        pickles = [name for name in others if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        hint = f"; {pickles[0]} is no safetensors file: convert the model with save_pretrained" if pickles else ""
        raise UploadError(f"{folder} holds no model: config.json and *.safetensors files are needed{hint}")
    return files, others


def sendable_name(name: str) -> str:
    """Return a file's name as the server accepts it, with `_` for each other character."""
    return re.sub(r"[^A-Za-z0-9._-]|^[.-]", "_", name)[-200:]


def send_upload(
    transport: Transport,
    announced: dict[str, JsonValue],
    files: dict[str, Path],
    idempotency_key: str,
    on_progress: OnUpload,
) -> Upload:
    """Announce `files` and send all of them; return the upload, not yet completed.

    Parts that the server has already are not sent again. Raises UploadError where a file is missing or changes
    meanwhile, and UploadInterrupted.
    """
    facts: list[JsonValue] = []
    for name, path in files.items():
        size, sha256 = _hashed(transport, name, path, on_progress)
        facts.append({"path": name, "bytes": size, "sha256": sha256})
    body = announced | {"files": facts}
    upload = transport.call("POST", "uploads", Upload, body=body, idempotency_key=idempotency_key)
    for file in _in_order(upload.files):
        _send_file(transport, upload, file, files[file.path], on_progress)
    return upload


def _in_order(files: Sequence[UploadedFile]) -> list[UploadedFile]:
    """Sort small files first: a model that is refused by its config is refused before the weights are sent."""
    return sorted(files, key=lambda file: (file.bytes, file.path))


def _hashed(transport: Transport, name: str, path: Path, on_progress: OnUpload) -> tuple[int, str]:
    sha256 = hashlib.sha256()
    done = 0

    def advance(content: BinaryIO) -> int:
        read = content.read(_HASHED_AT_ONCE)
        sha256.update(read)
        return len(read)

    try:
        total = path.stat().st_size
        with open(path, "rb") as content:
            while count := advance(content):
                done += count
                on_progress(UploadProgress(name, "hashing", done, max(total, done)))
    except OSError as error:
        raise UploadError(f"{path} cannot be read: {error.strerror or error}") from error
    return done, sha256.hexdigest()


def _send_file(transport: Transport, upload: Upload, file: UploadedFile, path: Path, on_progress: OnUpload) -> None:
    address = f"uploads/{segment(upload.id)}/files/{quote(file.path)}"
    received = file.received
    fruitless = 0
    on_progress(UploadProgress(file.path, "sending", received, file.bytes))
    with open(path, "rb") as content:
        while received < file.bytes:
            part = _part(content, received, min(upload.part_bytes, file.bytes - received))
            if len(part) < min(upload.part_bytes, file.bytes - received):
                raise UploadError(f"{path} became shorter while it was sent; upload it again once it stays as it is")
            before = received
            failure: ApiError | Unreachable | None = None
            try:
                query = {"offset": received}
                received = transport.call("PUT", address, ReceivedPart, params=query, content=part).received
            except OffsetMismatch as error:  # An answer was lost, or another client sends the same file.
                received, failure = error.received or 0, error
            except (Unreachable, ServerError, TooManyRequests) as error:
                received, failure = _received_bytes(transport, upload, file, received), error
            fruitless = 0 if received > before else fruitless + 1
            if fruitless == FRUITLESS_ATTEMPTS:
                raise UploadInterrupted(
                    f"{file.path}: {received} of {file.bytes} bytes are on the server, then no more went through "
                    f"({failure}); the same upload again goes on from there"
                ) from failure
            on_progress(UploadProgress(file.path, "sending", received, file.bytes))


def _received_bytes(transport: Transport, upload: Upload, file: UploadedFile, known: int) -> int:
    """Return the number of a file's bytes on the server; `known` where it does not answer."""
    try:
        current = transport.call("GET", f"uploads/{segment(upload.id)}", Upload)
    except (Unreachable, ServerError, TooManyRequests):
        return known
    return next((each.received for each in current.files if each.path == file.path), known)


def _part(content: BinaryIO, start: int, length: int) -> bytes:
    content.seek(start)
    return content.read(length)
