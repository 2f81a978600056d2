"""Uploads: announced with all their files, sent in parts, read, listed and given up."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import new_id, seconds_from_now
from core.engine.checkpoints.files import COMPANIONS, CONFIG_FILE, INDEX_FILE, SINGLE_FILE, is_model_file, is_pickle
from core.engine.datasets.formats import IMAGE_FOLDER, IMAGE_PARQUET, detect_format
from core.errors import (
    Conflict,
    MissingTensors,
    NotFound,
    PayloadTooLarge,
    PickleCheckpoint,
    SecateurError,
    UnusableModel,
    UploadRefused,
)
from core.pagination import Page, read_page
from core.service.registry.schemas import (
    FileToUpload,
    Upload,
    UploadBody,
    UploadedFile,
    UploadFailure,
    UploadKind,
    UploadStatus,
)
from core.service.registry.service import about, find_row, require_same_dataset, require_same_model
from core.service.registry.tables import DatasetRow, ModelRow, UploadFileRow, UploadRow
from core.service.sources.folders import content_hash_of
from core.service.sources.header_only_folder import require_readable
from core.service.sources.references import FileReference
from core.service.teams import audit
from core.service.teams.principal import Actor, Principal, team_of
from core.service.teams.quotas import release_stored, reserve_stored
from core.settings import Settings

MOST_PARTS = 10_000
"""Most parts of one file: S3 can assemble no more."""


def upload_prefix(upload_id: str) -> str:
    """Return the prefix of an upload's parts until it is complete; below it each file's name is a folder."""
    return f"uploads/{upload_id}"


def object_prefix(kind: str, object_id: str) -> str:
    """Return the prefix of a completed upload's files."""
    return f"{kind}s/{object_id}"


def start_upload(session: Session, caller: Principal, body: UploadBody, settings: Settings) -> tuple[Upload, bool]:
    """Announce an upload, and reserve its bytes; False where the same one is open already: so a client goes on.

    Where the same content has that name already, the upload is complete from the start. Raises Conflict where the name
    means something else, PickleCheckpoint, MissingTensors, UnusableModel, UploadRefused and PayloadTooLarge where the
    files cannot become what they are announced as, and QuotaExceeded.
    """
    _require_possible(body, settings)
    reading = _reading(body)
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
        .on_conflict_do_nothing(index_elements=["team_id", "kind", "name"], index_where=UploadRow.status == "open")
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
    """Return an upload; raises NotFound, also where it is another team's."""
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
    """Return the team's uploads, newest first: those open, and those that ended not long ago."""
    query = select(UploadRow).where(UploadRow.team_id == team_id)
    if kind is not None:
        query = query.where(UploadRow.kind == kind)
    if status is not None:
        query = query.where(UploadRow.status == status)
    page = read_page(session, query, UploadRow, limit=limit, after=after, answer=lambda row: upload_answer(row, ()))
    files: dict[str, list[UploadedFile]] = {upload.id: [] for upload in page.data}
    for file in session.scalars(
        select(UploadFileRow).where(UploadFileRow.upload_id.in_(files)).order_by(UploadFileRow.path)
    ):
        files[file.upload_id].append(_file_answer(file))
    filled = [upload.model_copy(update={"files": files[upload.id]}) for upload in page.data]
    return page.model_copy(update={"data": filled})


def abort_upload(session: Session, caller: Actor, upload_id: str, *, action: str = "upload.abort") -> Sequence[str]:
    """Forget an upload, and give back what it reserved; what it became, where it is complete, stays.

    The prefixes are what the store is to forget once the transaction is committed.

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
    """Return whether a process holds the lease of completing it."""
    if row.completing_until is None:
        return False
    return bool(session.scalar(select(row.completing_until > func.clock_timestamp())))


def prolonged(settings: Settings) -> ColumnElement[object]:
    """Return the time at which an upload that is used now expires."""
    return seconds_from_now(settings.upload_expiry_seconds)


def upload_answer(row: UploadRow, files: Sequence[UploadFileRow]) -> Upload:
    return Upload.model_validate(
        {
            "id": row.id,
            "object": "upload",
            "kind": row.kind,
            "name": row.name,
            "status": row.status,
            "files": [_file_answer(file) for file in files],
            "part_bytes": row.part_bytes,
            "error": None if row.error is None else UploadFailure.model_validate(row.error),
            "expires_at": row.expires_at,
            "created_at": row.created_at,
        }
    )


def _file_answer(file: UploadFileRow) -> UploadedFile:
    return UploadedFile(path=file.path, bytes=file.bytes, sha256=file.sha256, received=file.received)


def _require_possible(body: UploadBody, settings: Settings) -> None:
    """Require names and sizes that can become a model or dataset, so that no client learns otherwise after sending."""
    named: dict[str, FileToUpload] = {}
    for index, file in enumerate(body.files):
        param = f"files.{index}"
        if file.path in named:
            raise UploadRefused(f"{param}.path: {file.path!r} is named twice", param=f"{param}.path")
        named[file.path] = file
        if body.kind == "model":
            _require_model_file(file, param)
        if file.bytes > MOST_PARTS * settings.upload_part_bytes:
            raise PayloadTooLarge(
                f"{file.path} has {file.bytes} bytes: a file may have {MOST_PARTS * settings.upload_part_bytes}; split "
                "the weights into more files",
                param=f"{param}.bytes",
            )
    total = sum(file.bytes for file in body.files)
    if total > settings.upload_max_bytes:
        raise PayloadTooLarge(
            f"the files have {total} bytes together, this service takes {settings.upload_max_bytes}", param="files"
        )
    if body.kind == "dataset" and len(named) != 1:
        raise UploadRefused(f"a dataset is one file, {len(named)} are announced", param="files")
    if body.kind == "model" and CONFIG_FILE not in named:
        raise UnusableModel(f"a model needs {CONFIG_FILE}, which is not announced", param="files")
    if body.kind == "model" and not {SINGLE_FILE, INDEX_FILE} & named.keys():
        raise MissingTensors(f"a model needs {SINGLE_FILE} or {INDEX_FILE}, neither is announced", param="files")


def _require_model_file(file: FileToUpload, param: str) -> None:
    if is_pickle(file.path):
        raise PickleCheckpoint(
            f"{file.path} can run code when opened; convert the model to safetensors (save_pretrained does)",
            param=f"{param}.path",
        )
    if not is_model_file(file.path):
        raise UploadRefused(
            f"{file.path} is not a file of a model: *.safetensors, {INDEX_FILE}, {', '.join(COMPANIONS)} are",
            param=f"{param}.path",
        )
    try:
        require_readable(FileReference(path=file.path, bytes=file.bytes))
    except UnusableModel as error:
        raise about(error, f"{param}.bytes") from error


def _reading(body: UploadBody) -> dict[str, str | None]:
    """Return the values of a dataset's `READING` columns; raises the error that names the fault."""
    of_text = {"format": None, "text_field": body.text_field, "image_field": None, "label_field": None}
    if body.kind == "model":
        return of_text
    try:
        format_name = body.format or detect_format(Path(body.files[0].path))
    except SecateurError as error:
        raise about(error, "format") from error
    if format_name == IMAGE_FOLDER:
        raise UploadRefused(
            "a folder of images is not uploaded file by file: write it as one Parquet file, for example with "
            "datasets.load_dataset('imagefolder', data_dir='FOLDER', split='train').to_parquet('images.parquet'), and "
            f"upload that as {IMAGE_PARQUET}",
            param="format",
        )
    if format_name == IMAGE_PARQUET:
        return {
            "format": format_name,
            "text_field": "text",
            "image_field": body.image_field,
            "label_field": body.label_field,
        }
    return of_text | {"format": format_name}


def _registered_id(session: Session, team_id: str, body: UploadBody, reading: Mapping[str, str | None]) -> str | None:
    """Return the id of what has the name and the same content already; raises Conflict where its content differs."""
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
    """Return the open upload of that name, its expiry prolonged; raises Conflict where it has other files."""
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
        raise Conflict(f"an upload named {body.name!r} has ended this moment: try again", param="name")
    files = files_of(session, row.id)
    announced = {(file.path, file.bytes, file.sha256) for file in body.files}
    is_read_alike = all(getattr(row, name) == value for name, value in reading.items())
    if not is_read_alike or announced != {(file.path, file.bytes, file.sha256) for file in files}:
        raise Conflict(
            f"an upload named {body.name!r} with other files is open: finish it, or delete it ({row.id})", param="name"
        )
    return upload_answer(row, files)
