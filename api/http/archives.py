"""Whole artifacts as a tar archive, created while it is sent: it is never whole in memory or on disk."""

import tarfile
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from api.state import ApiState
from core.database import transaction
from core.service.jobs import service
from core.service.retention.reads import note_read
from core.storage import Store, artifact_prefix, attachment
from secateur_wire.errors import NotFound, StoreUnavailable
from secateur_wire.jobs import ArtifactFile

MEDIA_TYPE: Final = "application/x-tar"
_END: Final = bytes(2 * tarfile.BLOCKSIZE)
"""End of an archive: two blocks of zeros."""
_MODE: Final = 0o644


def artifact_archive(request: Request, state: ApiState, team_id: str, job_id: str) -> Response:
    """Answer GET or HEAD with all files of an artifact, in a folder named after the job.

    The length is known in advance: a header and whole blocks for each file. Raises NotFound without an artifact, and
    StoreUnavailable. If a file is removed meanwhile, the connection ends before that length.
    """
    with transaction(state.sessions) as session:
        job = service.get_job(session, team_id, job_id)
        files = service.list_artifacts(session, team_id, job_id).data
        if not files:
            raise NotFound(f"job {job_id!r} has no artifact: it is {job.status}")
        attempt, _ = service.find_artifact(session, team_id, job_id, files[0].path)
        note_read(session, job_id)
    prefix, ended = artifact_prefix(job_id, attempt), job.finished_at or job.created_at
    headers = [_header(job_id, file, ended) for file in files]
    length = sum(map(len, headers)) + sum(_padded(file.bytes) for file in files) + len(_END)
    fields = {
        "Content-Length": str(length),
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": attachment(f"{job_id}.tar"),
    }
    if request.method == "HEAD":
        return Response(None, 200, fields, media_type=MEDIA_TYPE)
    first = _open(state.store, prefix, files[0])  # A missing file is reported before anything is sent.

    def content() -> Iterator[bytes]:
        for number, (header, file) in enumerate(zip(headers, files, strict=True)):
            if number:
                with transaction(state.sessions) as session:
                    note_read(session, job_id)
            yield header
            yield from _blocks(first if number == 0 else _open(state.store, prefix, file), file)
        yield _END

    return StreamingResponse(content(), 200, fields, media_type=MEDIA_TYPE)


def _header(folder: str, file: ArtifactFile, ended: datetime) -> bytes:
    info = tarfile.TarInfo(f"{folder}/{file.path}")
    info.size, info.mtime, info.mode = file.bytes, int(ended.timestamp()), _MODE
    return info.tobuf(tarfile.PAX_FORMAT)


def _open(store: Store, prefix: str, file: ArtifactFile) -> Iterator[bytes]:
    return store.open_range(prefix, file.path, 0, file.bytes)


def _blocks(chunks: Iterator[bytes], file: ArtifactFile) -> Iterator[bytes]:
    """Yield a file, padded to whole blocks; raises StoreUnavailable where the store has fewer bytes than listed."""
    sent = 0
    for chunk in chunks:
        sent += len(chunk)
        yield chunk
    if sent != file.bytes:
        raise StoreUnavailable(f"{file.path}: {sent} of {file.bytes} bytes are in the store")
    yield bytes(_padded(file.bytes) - file.bytes)


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
