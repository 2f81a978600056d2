"""Completion of an upload with all its bytes: the upload becomes a model or dataset.

Each file is hashed from its parts and assembled at the prefix of the model or dataset. Progress is stored per file, so
that an interrupted completion continues. A lease lets only one process at a time complete an upload.
"""

import contextlib
import hashlib
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import delete, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.database import new_id, seconds_from_now, transaction
from core.engine.architectures.description import Source, UndiscoveredModel, stored_description
from core.engine.architectures.sandboxed import Slot, describe_sandboxed
from core.engine.datasets.formats import IMAGE_PARQUET
from core.engine.datasets.image_facts import ImagesDescription, describe_image_stream
from core.engine.datasets.text_files import TextDescription, describe_stream, is_sandboxed
from core.service.discoveries.requests import ask_if_possible
from core.service.registry.check_slots import CheckSlots
from core.service.registry.provenance import check_statement
from core.service.registry.service import add_dataset, add_model, dataset_answer, get_row, image_facts, model_answer
from core.service.registry.tables import DatasetRow, ModelRow, UploadFileRow, UploadPartRow, UploadRow
from core.service.registry.upload_parts import file_prefix, parts_of
from core.service.registry.upload_refusal import refuse_upload
from core.service.registry.uploads import files_of, find_upload, is_being_completed, object_prefix, upload_prefix
from core.service.sources.folders import content_hash_of
from core.service.sources.header_only_folder import write_header_only_folder
from core.service.sources.references import FileReference
from core.service.teams import audit
from core.service.teams.principal import Principal
from core.service.teams.quotas import release_stored
from core.settings import Settings
from core.storage import Store, open_stored
from core.storage.removal import remove_prefixes
from secateur_wire.datasets import Dataset
from secateur_wire.errors import (
    Unavailable,
    UnsupportedArchitecture,
    UnusableDataset,
    UnusableModel,
    UploadRefused,
)
from secateur_wire.models import Model
from secateur_wire.provenance import PROVENANCE

LEASE_SECONDS = 60.0
_RENEW_SECONDS = 15.0


def complete_upload(
    sessions: sessionmaker[Session],
    store: Store,
    caller: Principal,
    upload_id: str,
    settings: Settings,
    check_slots: CheckSlots,
) -> tuple[Model | Dataset, bool]:
    """Make the model or dataset; return False if it existed already. Repeatable.

    Raises NotFound, and UploadRefused where bytes are missing or a hash differs from the announced one (the file must
    then be sent again). Raises the UnusableModel kinds, UnsupportedArchitecture or UnusableDataset for an invalid
    whole; the upload has then failed. Raises Conflict where the name has been taken meanwhile. Raises Unavailable while
    another request completes the upload, or while other checks use all the memory; the next try hashes no file again.
    """
    owner = new_id("completion")
    with transaction(sessions) as session:
        done = _begin(session, caller, upload_id, owner)
        if done is not None:
            return done, False
        upload = find_upload(session, caller.team_id, upload_id)
        files = files_of(session, upload_id)
    with _leased(sessions, upload_id, owner):
        mismatched = [
            file.path for file in files if not file.stored and not _store_file(sessions, store, upload, file, owner)
        ]
        if mismatched:
            raise UploadRefused(
                f"{', '.join(mismatched)}: the SHA-256 of what arrived is not the announced one: send it again",
                param="files",
            )
        try:
            described = _describe(store, upload, files, partial(check_slots.slot, caller.team_id))
        except (UnusableModel, UnsupportedArchitecture, UnusableDataset) as error:
            with transaction(sessions) as session:
                _require_lease(session, upload_id, owner)
            raise refuse_upload(sessions, store, caller, upload_id, error) from error
        with transaction(sessions) as session:
            _require_lease(session, upload_id, owner)
            answer, is_new, leftovers = _register(session, caller, upload_id, files, described, settings)
    remove_prefixes(store, leftovers)
    return answer, is_new


def _begin(session: Session, caller: Principal, upload_id: str, owner: str) -> Model | Dataset | None:
    """Take the lease; return the model or dataset of an upload that is complete already."""
    upload = find_upload(session, caller.team_id, upload_id, for_change=True)
    if upload.status == "complete":
        if upload.kind == "model":
            return model_answer(session, get_row(session, ModelRow, caller.team_id, upload.object_id))
        return dataset_answer(get_row(session, DatasetRow, caller.team_id, upload.object_id))
    if upload.error is not None:
        raise UploadRefused(f"upload {upload_id!r} is over: {upload.error['message']}", param="files")
    missing = [file for file in files_of(session, upload_id) if file.received < file.bytes]
    if missing:
        first = missing[0]
        raise UploadRefused(
            f"{len(missing)} files are not complete: {first.received} of {first.bytes} bytes of {first.path} have "
            "arrived",
            param="files",
        )
    if is_being_completed(session, upload):
        raise _taken_over(upload_id)
    session.execute(
        update(UploadRow)
        .where(UploadRow.id == upload_id)
        .values(completing_by=owner, completing_until=seconds_from_now(LEASE_SECONDS))
    )
    return None


@contextlib.contextmanager
def _leased(sessions: sessionmaker[Session], upload_id: str, owner: str) -> Iterator[None]:
    """Renew the lease while the body runs, until another process has taken it."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_RENEW_SECONDS):
            with contextlib.suppress(SQLAlchemyError), transaction(sessions) as session:
                _renew(session, upload_id, owner)

    thread = threading.Thread(target=renew, name=f"completing {upload_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(SQLAlchemyError), transaction(sessions) as session:
            mine = (UploadRow.id == upload_id, UploadRow.completing_by == owner)
            session.execute(update(UploadRow).where(*mine).values(completing_by=None, completing_until=None))


def _renew(session: Session, upload_id: str, owner: str) -> bool:
    """Renew the lease and lock the upload's row for this transaction; False where another process holds the lease."""
    renewed = session.scalar(
        update(UploadRow)
        .where(UploadRow.id == upload_id, UploadRow.completing_by == owner)
        .values(completing_until=seconds_from_now(LEASE_SECONDS))
        .returning(UploadRow.id)
        .execution_options(synchronize_session=False)
    )
    return renewed is not None


def _require_lease(session: Session, upload_id: str, owner: str) -> None:
    """Require the lease before a write.

    Raises Unavailable where this process paused for longer than its lease, and another process has taken over.
    """
    if not _renew(session, upload_id, owner):
        raise _taken_over(upload_id)


def _taken_over(upload_id: str) -> Unavailable:
    return Unavailable(f"upload {upload_id!r} is being completed by another request: try again")


def _store_file(
    sessions: sessionmaker[Session], store: Store, upload: UploadRow, file: UploadFileRow, owner: str
) -> bool:
    """Assemble one file; False where its hash is wrong, and it has to be sent again from the start."""
    parts_prefix = file_prefix(upload.id, file.path)
    with transaction(sessions) as session:
        parts = parts_of(session, upload.id, file.path)
    digest = hashlib.sha256()
    for part in parts:
        for chunk in store.open_range(parts_prefix, part.path, 0, part.bytes):
            digest.update(chunk)
    is_right = digest.hexdigest() == file.sha256
    if is_right:
        store.join(parts_prefix, parts, object_prefix(upload.kind, upload.object_id), file.path)
    with transaction(sessions) as session:
        _require_lease(session, upload.id, owner)
        session.execute(
            update(UploadFileRow)
            .where(UploadFileRow.upload_id == upload.id, UploadFileRow.path == file.path)
            .values({"stored": True} if is_right else {"received": 0, "checked": False})
        )
        session.execute(
            delete(UploadPartRow).where(UploadPartRow.upload_id == upload.id, UploadPartRow.path == file.path)
        )
    remove_prefixes(store, [parts_prefix])
    return is_right


@dataclass(frozen=True)
class _DescribedModel:
    """Facts of an uploaded model, and its signed statement where it has one."""

    facts: Source
    statement: bytes | None


_Described = _DescribedModel | TextDescription | ImagesDescription


def _describe(store: Store, upload: UploadRow, files: Sequence[UploadFileRow], slot: Slot) -> _Described:
    """Describe the uploaded files. A child that reads them takes memory, and runs in a slot."""
    prefix = object_prefix(upload.kind, upload.object_id)

    def read(file: FileReference, start: int, end: int) -> bytes:
        return b"".join(store.open_range(prefix, file.path, start, end))

    if upload.kind == "model":
        with tempfile.TemporaryDirectory(prefix="secateur-upload-") as temporary:
            folder = Path(temporary, upload.name)
            folder.mkdir()
            references = [FileReference(path=file.path, bytes=file.bytes) for file in files]
            write_header_only_folder(folder, references, read)
            statement = next((read(file, 0, file.bytes) for file in references if file.path == PROVENANCE), None)
            return _DescribedModel(describe_sandboxed(folder, slot), statement)
    file = files[0]
    size, sha256 = file.bytes, file.sha256
    is_slotted = upload.format == IMAGE_PARQUET or is_sandboxed(str(upload.format), size)
    with (
        slot() if is_slotted else contextlib.nullcontext(),
        open_stored(store, prefix, file.path, size) as stream,
    ):
        if upload.format == IMAGE_PARQUET:
            fields = (str(upload.image_field), str(upload.label_field))
            return describe_image_stream(stream, file.path, *fields, size=size, sha256=sha256)
        return describe_stream(stream, file.path, str(upload.format), upload.text_field, size=size, sha256=sha256)


def _register(
    session: Session,
    caller: Principal,
    upload_id: str,
    files: Sequence[UploadFileRow],
    described: _Described,
    settings: Settings,
) -> tuple[Model | Dataset, bool, Sequence[str]]:
    upload = find_upload(session, caller.team_id, upload_id, for_change=True)
    prefix = object_prefix(upload.kind, upload.object_id)
    values = {
        "id": upload.object_id,
        "name": upload.name,
        "prefix": prefix,
        "files": [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in files],
        "source": upload.source,
    }
    answer: Model | Dataset
    if isinstance(described, ImagesDescription):
        fields = (str(upload.image_field), str(upload.label_field))
        dataset, is_new = add_dataset(session, caller, values | image_facts(described, str(upload.format), *fields))
        answer = dataset_answer(dataset)
    elif isinstance(described, TextDescription):
        facts = {"format": upload.format, "text_field": upload.text_field, **described.model_dump()}
        dataset, is_new = add_dataset(session, caller, values | facts)
        answer = dataset_answer(dataset)
    else:
        digests = {file.path: file.sha256 for file in files}
        provenance = check_statement(session, upload.team_id, described.statement, digests, settings)
        columns = {
            "revision": content_hash_of(digests),
            "description": stored_description(described.facts),
            "provenance": None if provenance is None else provenance.model_dump(mode="json"),
        }
        model, is_new = add_model(session, caller, values | columns)
        if isinstance(described.facts, UndiscoveredModel):
            ask_if_possible(session, caller, described.facts, settings)
        answer = model_answer(session, model)
    upload.status, upload.object_id = "complete", answer.id
    audit.note(session, caller, "upload.complete", upload_id, {"kind": upload.kind, "name": upload.name})
    leftovers = [upload_prefix(upload_id)]
    if not is_new:  # Registered meanwhile, with the same content.
        leftovers.append(prefix)
        release_stored(session, upload.team_id, upload.bytes)
    return answer, is_new, leftovers
