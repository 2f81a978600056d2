"""Parts of uploads: each part is stored first and counted afterwards, so every counted part is in the store.

Each part is a file of its own in the store, under a unique name. If two requests send the same part, the first to be
counted wins. The other gets the offset to continue from, and its file is removed. The metadata in a model's file is
checked with the part that completes it, before that part is accepted.
"""

import contextlib
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.engine.architectures.sandboxed import check_sandboxed
from core.engine.checkpoints.files import CHECKED, is_weight_file
from core.service.registry.tables import UploadFileRow, UploadPartRow, UploadRow
from core.service.registry.upload_refusal import refuse_upload
from core.service.registry.upload_validation import MOST_PARTS
from core.service.registry.uploads import find_upload, prolonged, upload_prefix
from core.service.sources.header_only_folder import header_end, write_header_only_weights
from core.service.sources.references import FileReference
from core.service.teams.principal import Principal
from core.settings import Settings
from core.storage import Store, UploadPart, translate_disk_full
from secateur_wire.errors import NotFound, OffsetMismatch, SecateurError, Unavailable, UnusableModel, UploadRefused
from secateur_wire.uploads import ReceivedPart

logger = structlog.get_logger()


@dataclass(frozen=True)
class ExpectedPart:
    """Next part that an upload expects: its file, and its offset in the file."""

    upload_id: str
    file: FileReference
    start: int
    most_bytes: int
    is_checked: bool
    before: Sequence[UploadPart]
    """Parts that have arrived, if they may be needed to check the file."""

    @property
    def prefix(self) -> str:
        return file_prefix(self.upload_id, self.file.path)


def file_prefix(upload_id: str, path: str) -> str:
    return f"{upload_prefix(upload_id)}/{path}"


def parts_of(session: Session, upload_id: str, path: str) -> list[UploadPart]:
    """Return the parts of one file, in order."""
    query = (
        select(UploadPartRow)
        .where(UploadPartRow.upload_id == upload_id, UploadPartRow.path == path)
        .order_by(UploadPartRow.start)
    )
    return [UploadPart(row.place, row.bytes) for row in session.scalars(query)]


def expect_part(session: Session, team_id: str, upload_id: str, path: str, start: int) -> ExpectedPart:
    """Check that a part may be sent, before its bytes are read; return its file and its offset.

    Raises NotFound, UploadRefused where the upload is over, and OffsetMismatch.
    """
    upload = find_upload(session, team_id, upload_id)
    file = session.get(UploadFileRow, (upload_id, path))
    if file is None:
        raise NotFound(f"upload {upload_id!r} has no file {path!r}")
    if upload.error is not None:
        raise UploadRefused(f"upload {upload_id!r} is over: {upload.error['message']}", param="files")
    if upload.status != "open":
        raise UploadRefused(f"upload {upload_id!r} is {upload.status}: it accepts no more parts")
    if file.received != start:
        raise _mismatch(path, start, file.received)
    before = [] if file.checked else parts_of(session, upload_id, path)
    return ExpectedPart(
        upload_id=upload_id,
        file=FileReference(path=path, bytes=file.bytes, sha256=file.sha256),
        start=start,
        most_bytes=upload.part_bytes,
        is_checked=file.checked or not (upload.kind == "model" and (path in CHECKED or is_weight_file(path))),
        before=before,
    )


def new_place(part: ExpectedPart) -> str:
    """Return a unique name for a part."""
    return f"{part.start}-{uuid.uuid4().hex}"


def receive_part(
    sessions: sessionmaker[Session],
    store: Store,
    settings: Settings,
    caller: Principal,
    part: ExpectedPart,
    stored: UploadPart,
) -> ReceivedPart:
    """Count a stored part. A part that does not fit is removed, and all earlier parts stay.

    Raises UploadRefused, the UnusableModel kind of an invalid file (the upload is then over), OffsetMismatch where
    another part came first, NotFound where the upload is gone, StoreUnavailable and DiskFull.
    """
    try:
        is_checked = part.is_checked or _look(store, part, stored)
        with transaction(sessions) as session:
            return _count(session, settings, part, stored, is_checked)
    except UnusableModel as error:
        raise refuse_upload(sessions, store, caller, part.upload_id, error) from error
    except SecateurError:
        with contextlib.suppress(Unavailable):
            store.delete(f"{part.prefix}/{stored.path}")
        raise


def require_size(part: ExpectedPart, size: int) -> None:
    """Raise UploadRefused for a part with a size that does not fit."""
    end = part.start + size
    if size == 0:
        raise UploadRefused(f"the part of {part.file.path} is empty")
    if end > part.file.bytes:
        raise UploadRefused(
            f"{part.file.path} was announced with {part.file.bytes} bytes, but with this part it has {end}"
        )
    if len(part.before) >= MOST_PARTS:
        raise UploadRefused(f"{part.file.path} has {MOST_PARTS} parts already: send larger ones")


def _count(
    session: Session, settings: Settings, part: ExpectedPart, stored: UploadPart, is_checked: bool
) -> ReceivedPart:
    """Count a part on its file's row; only the part at the row's offset may change it."""
    is_open = session.scalar(
        update(UploadRow)
        .where(UploadRow.id == part.upload_id, UploadRow.status == "open")
        .values(expires_at=prolonged(settings))
        .returning(UploadRow.id)
    )
    if is_open is None:
        raise NotFound(f"upload {part.upload_id!r} is no longer open")
    file_row = (UploadFileRow.upload_id == part.upload_id, UploadFileRow.path == part.file.path)
    received = session.scalar(
        update(UploadFileRow)
        .where(*file_row, UploadFileRow.received == part.start)
        .values(received=part.start + stored.bytes, checked=is_checked)
        .returning(UploadFileRow.received)
    )
    if received is None:
        there = session.scalars(select(UploadFileRow.received).where(*file_row)).one()
        raise _mismatch(part.file.path, part.start, there)
    session.execute(
        insert(UploadPartRow).values(
            upload_id=part.upload_id, path=part.file.path, start=part.start, bytes=stored.bytes, place=stored.path
        )
    )
    return ReceivedPart(path=part.file.path, bytes=part.file.bytes, received=received)


def _look(store: Store, part: ExpectedPart, stored: UploadPart) -> bool:
    """Return whether the file's header, or all of a small file, has arrived.

    Raises the UnusableModel kind of an invalid file.
    """
    file, available = part.file, part.start + stored.bytes

    def read(end: int) -> bytes:
        arrived = b""
        for each in (*part.before, stored):
            wanted = min(each.bytes, end - len(arrived))
            arrived += b"".join(store.open_range(part.prefix, each.path, 0, wanted)) if wanted else b""
        return arrived

    with translate_disk_full(), tempfile.TemporaryDirectory(prefix="secateur-upload-") as temporary:
        return _checks[file.path in CHECKED](Path(temporary), file, available, read)


def _check_companion(folder: Path, file: FileReference, available: int, read: Callable[[int], bytes]) -> bool:
    if available < file.bytes:
        return False
    (folder / file.path).write_bytes(read(file.bytes))
    check_sandboxed(folder / file.path, file.bytes)
    return True


def _check_weights(folder: Path, file: FileReference, available: int, read: Callable[[int], bytes]) -> bool:
    if available < min(8, file.bytes):
        return False
    first = read(8)
    end = header_end(file, first)
    if end is not None and end > available:
        return False
    write_header_only_weights(folder / file.path, first if end is None else read(end), file.bytes)
    check_sandboxed(folder / file.path, end or 0)
    return True


_checks = {True: _check_companion, False: _check_weights}


def _mismatch(path: str, start: int, received: int) -> OffsetMismatch:
    return OffsetMismatch(
        f"{received} bytes of {path} have arrived: go on from {received}, not from {start}",
        members={"received": received},
        param="offset",
    )
