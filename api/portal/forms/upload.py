"""Form with files for browsers without JavaScript: one request, streamed to disk, then stored like any upload.

The session is checked before the body is read. The form's token is part of the body, and is checked afterwards.
"""

import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, BinaryIO

from anyio import to_thread
from fastapi import Depends, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.http.upload_parts import NextPart, send_file
from api.portal.session import Form, read_form, require_own_form, require_same_origin, session_of
from api.state import ApiState
from core.database import transaction
from core.engine.checkpoints.files import is_model_file, is_pickle, is_weight_file
from core.service.registry import uploads
from core.service.registry.schemas import UploadBody
from core.service.registry.upload_completion import complete_upload
from core.service.teams.principal import Principal
from core.storage import translate_disk_full
from core.storage.removal import remove_prefixes
from secateur_wire.datasets import Dataset
from secateur_wire.errors import ApiError, InvalidRequest, UploadRefused
from secateur_wire.models import Model
from secateur_wire.uploads import Upload, UploadKind

_HASHED_AT_ONCE = 2**20


def _sender(request: Request, principal: Annotated[Principal, Depends(session_of)]) -> Principal:
    principal.require("member")
    require_same_origin(request)
    return principal


Sender = Annotated[Principal, Depends(_sender)]
"""A member whose form has not been read yet; `sent_form` reads it and checks that a page of this session sent it."""


@contextlib.asynccontextmanager
async def sent_form(request: Request) -> AsyncIterator[tuple[Form, dict[str, BinaryIO]]]:
    """Yield the text fields, and the files by name. Raises PayloadTooLarge, InvalidRequest, Forbidden and DiskFull."""
    try:
        with translate_disk_full():
            sent = await request.form()
    except HTTPException as error:
        raise InvalidRequest(f"the form cannot be read: {error.detail}") from None
    except ClientDisconnect:
        raise UploadRefused("the connection ended before the whole form arrived") from None
    try:
        form = read_form(sent.multi_items())
        require_own_form(request, form)
        files = [each for each in sent.getlist("files") if isinstance(each, UploadFile) and each.filename]
        yield form, {PurePosixPath(each.filename or "").name: each.file for each in files}
    finally:
        await sent.close()


async def take_files(
    state: ApiState, caller: Principal, kind: UploadKind, fields: Mapping[str, str], files: Mapping[str, BinaryIO]
) -> Model | Dataset:
    """Announce, send and complete an upload of local files. A failed upload is aborted unless it was open before.

    Raises the errors of these three steps, and ValidationError.
    """
    chosen = {sendable_name(name): files[name] for name in files_of_model(kind, list(files))}
    if not chosen:
        raise InvalidRequest("choose at least one file", param="files")
    announced = [await to_thread.run_sync(_announced, name, content) for name, content in chosen.items()]
    body = UploadBody.model_validate({**fields, "kind": kind, "files": announced})
    upload, is_new = await to_thread.run_sync(_start, state, caller, body)
    try:
        # Sorted so that an invalid config is refused before weights are sent.
        for file in sorted(upload.files, key=lambda file: file.bytes):
            if file.received < file.bytes:
                await send_file(state, caller, NextPart(upload.id, file.path, file.received), chosen[file.path])
        done = await to_thread.run_sync(
            complete_upload, state.sessions, state.store, caller, upload.id, state.settings, state.check_slots
        )
    except ApiError:
        if is_new:
            await to_thread.run_sync(abort, state, caller, upload.id)
        raise
    return done[0]


def files_of_model(kind: UploadKind, names: Sequence[str]) -> list[str]:
    """Return the files of a folder that belong to the model.

    Pickles are included if there are no other weights. If no file belongs to a model, return all files: the service
    then explains the refusal.
    """
    if kind == "dataset":
        return list(names)
    has_weights = any(is_weight_file(name) for name in names)
    kept = [name for name in names if is_model_file(name) or (is_pickle(name) and not has_weights)]
    return kept or list(names)


def sendable_name(name: str) -> str:
    """Return a file's name as uploads accept it: other characters than letters, digits, `.`, `-` and `_` become `_`."""
    return re.sub(r"[^A-Za-z0-9._-]|^[.-]", "_", name)[-200:]


def abort(state: ApiState, caller: Principal, upload_id: str) -> None:
    """Abort an upload: remove its rows, then its parts."""
    with transaction(state.sessions) as session:
        prefixes = uploads.abort_upload(session, caller, upload_id)
    remove_prefixes(state.store, prefixes)


def _announced(name: str, content: BinaryIO) -> dict[str, object]:
    digest = hashlib.sha256()
    while chunk := content.read(_HASHED_AT_ONCE):
        digest.update(chunk)
    return {"path": name, "bytes": content.tell(), "sha256": digest.hexdigest()}


def _start(state: ApiState, caller: Principal, body: UploadBody) -> tuple[Upload, bool]:
    with transaction(state.sessions) as session:
        return uploads.start_upload(session, caller, body, state.settings)
