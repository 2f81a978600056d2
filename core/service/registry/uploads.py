"""Uploads: announced with all their files, sent in parts, read, listed and aborted."""

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import new_id, seconds_from_now
from core.pagination import Listing, read_page
from core.service.registry.schemas import UploadBody
from core.service.registry.service import find_row, require_same_dataset, require_same_model
from core.service.registry.tables import UPLOAD_IS_OPEN, DatasetRow, ModelRow, UploadFileRow, UploadRow
from core.service.registry.upload_validation import reading_of, require_possible
from core.service.sources.folders import content_hash_of
from core.service.teams import audit
from core.service.teams.principal import Actor, Principal, team_of
from core.service.teams.quotas import release_stored, reserve_stored
from core.settings import Settings
from secateur_wire.base import Page
from secateur_wire.errors import Conflict, NotFound
from secateur_wire.uploads import Upload, UploadedFile, UploadFailure, UploadKind, UploadStatus


def upload_prefix(upload_id: str) -> str:
    """Return the prefix of an unfinished upload's parts; each file has a folder of its name below it."""
    return f"uploads/{upload_id}"


def object_prefix(kind: str, object_id: str) -> str:
    """Return the prefix of a completed upload's files."""
    return f"{kind}s/{object_id}"


def start_upload(session: Session, caller: Principal, body: UploadBody, settings: Settings) -> tuple[Upload, bool]:
    """Announce an upload and reserve its bytes; return False if the same one is open already, which then continues.

    If the same content has that name already, the upload is complete from the start. Raises Conflict where the name
    belongs to other content. Raises PickleCheckpoint, MissingTensors, UnusableModel, UploadRefused and PayloadTooLarge
    for files that cannot be valid, and QuotaExceeded.
    """
    require_possible(body, settings)
    reading = reading_of(body)
    registered_id = _registered_id(session, caller.team_id, body, reading)
    is_there = registered_id is not None
    created = session.scalar(
        insert(UploadRow)
        .values(
            id=new_id("upload"),
            team_id=caller.team_id,
            kind=body.kind,
            name=body.name,
            status="complete" if is_there else "open",
            object_id=registered_id or new_id(body.kind),
            **reading,
            source=body.source,
            bytes=sum(file.bytes for file in body.files),
            part_bytes=settings.upload_part_bytes,
            expires_at=seconds_from_now(settings.upload_expiry_seconds),
        )
        .on_conflict_do_nothing(index_elements=["team_id", "kind", "name"], index_where=text(UPLOAD_IS_OPEN))
        .returning(UploadRow.id)
    )
    if created is None:
        return _open_one(session, caller.team_id, body, reading, settings), False
    session.execute(
        insert(UploadFileRow),
        [
            {"upload_id": created, **file.model_dump(), "received": file.bytes if is_there else 0, "stored": is_there}
            for file in body.files
        ],
    )
    row = session.get_one(UploadRow, created)
    audit.note(session, caller, "upload.start", row.id, {"kind": row.kind, "name": row.name, "bytes": row.bytes})
    if not is_there:
        reserve_stored(session, caller.team_id, row.bytes)
    return upload_answer(row, files_of(session, row.id)), True


def get_upload(session: Session, team_id: str, upload_id: str) -> Upload:
    """Return an upload; raises NotFound, also for another team's."""
    row = find_upload(session, team_id, upload_id)
    return upload_answer(row, files_of(session, row.id))


def list_uploads(
    session: Session,
    team_id: str,
    *,
    limit: int,
    after: str | None,
    kind: UploadKind | None = None,
    status: UploadStatus | None = None,
) -> Page[Upload]:
    """Return the team's uploads, newest first: open ones, and recently ended ones."""
    query = select(UploadRow).where(UploadRow.team_id == team_id)
    if kind is not None:
        query = query.where(UploadRow.kind == kind)
    if status is not None:
        query = query.where(UploadRow.status == status)
    page = read_page(session, Listing(query, UploadRow, lambda row: upload_answer(row, ())), limit=limit, after=after)
    files: dict[str, list[UploadedFile]] = {upload.id: [] for upload in page.data}
    for file in session.scalars(
        select(UploadFileRow).where(UploadFileRow.upload_id.in_(files)).order_by(UploadFileRow.path)
    ):
        files[file.upload_id].append(_file_answer(file))
    filled = [upload.model_copy(update={"files": files[upload.id]}) for upload in page.data]
    return page.model_copy(update={"data": filled})


def abort_upload(session: Session, caller: Actor, upload_id: str, *, action: str = "upload.abort") -> Sequence[str]:
    """Remove an upload and release its reserved bytes; the model or dataset of a complete one stays.

    The store must remove the returned prefixes after the commit.

    Raises NotFound, and Conflict while it is being completed.
    """
    row = find_upload(session, team_of(caller), upload_id, for_change=True)
    if is_being_completed(session, row):
        raise Conflict(f"upload {upload_id!r} is being completed")
    session.execute(delete(UploadRow).where(UploadRow.id == row.id))
    audit.note(session, caller, action, row.id, {"kind": row.kind, "name": row.name, "status": row.status})
    if row.status != "open":
        return (upload_prefix(row.id),)
    release_stored(session, row.team_id, row.bytes)
    return (upload_prefix(row.id), object_prefix(row.kind, row.object_id))


def find_upload(session: Session, team_id: str, upload_id: str, *, for_change: bool = False) -> UploadRow:
    query = select(UploadRow).where(UploadRow.id == upload_id, UploadRow.team_id == team_id)
    row = session.scalar(query.with_for_update() if for_change else query)
    if row is None:
        raise NotFound(f"there is no upload {upload_id!r}")
    return row


def files_of(session: Session, upload_id: str) -> Sequence[UploadFileRow]:
    query = select(UploadFileRow).where(UploadFileRow.upload_id == upload_id).order_by(UploadFileRow.path)
    return session.scalars(query.execution_options(populate_existing=True)).all()


def is_being_completed(session: Session, row: UploadRow) -> bool:
    """Return whether a process holds the lease that completes the upload."""
    if row.completing_until is None:
        return False
    return bool(session.scalar(select(row.completing_until > func.clock_timestamp())))


def prolonged(settings: Settings) -> ColumnElement[object]:
    """Return the new expiry of an upload that is in use now."""
    return seconds_from_now(settings.upload_expiry_seconds)


def upload_answer(row: UploadRow, files: Sequence[UploadFileRow]) -> Upload:
    return Upload.model_validate(
        {
            "id": row.id,
            "kind": row.kind,
            "name": row.name,
            "status": row.status,
            "files": [_file_answer(file) for file in files],
            "part_bytes": row.part_bytes,
            "error": None if row.error is None else UploadFailure.model_validate(row.error, extra="ignore"),
            "expires_at": row.expires_at,
            "created_at": row.created_at,
        }
    )


def _file_answer(file: UploadFileRow) -> UploadedFile:
    return UploadedFile(path=file.path, bytes=file.bytes, sha256=file.sha256, received=file.received)


def _registered_id(session: Session, team_id: str, body: UploadBody, reading: Mapping[str, str | None]) -> str | None:
    """Return the id of an object with the same name and content; raises Conflict where the content differs."""
    if body.kind == "model":
        model = find_row(session, ModelRow, team_id, body.name)
        if model is not None:
            require_same_model(model, content_hash_of({file.path: file.sha256 for file in body.files}))
        return None if model is None else model.id
    dataset = find_row(session, DatasetRow, team_id, body.name)
    if dataset is not None:
        require_same_dataset(dataset, body.files[0].sha256, reading)
    return None if dataset is None else dataset.id


def _open_one(
    session: Session, team_id: str, body: UploadBody, reading: Mapping[str, str | None], settings: Settings
) -> Upload:
    """Return the open upload of that name with a new expiry; raises Conflict where it has other files."""
    row = session.scalar(
        update(UploadRow)
        .where(
            UploadRow.team_id == team_id,
            UploadRow.kind == body.kind,
            UploadRow.name == body.name,
            UploadRow.status == "open",
        )
        .values(expires_at=prolonged(settings))
        .returning(UploadRow)
    )
    if row is None:
        raise Conflict(f"an upload named {body.name!r} has just ended: try again", param="name")
    files = files_of(session, row.id)
    announced = {(file.path, file.bytes, file.sha256) for file in body.files}
    is_read_alike = all(getattr(row, name) == value for name, value in reading.items())
    if not is_read_alike or announced != {(file.path, file.bytes, file.sha256) for file in files}:
        raise Conflict(
            f"an upload named {body.name!r} with other files is open: finish it, or delete it ({row.id})", param="name"
        )
    return upload_answer(row, files)
