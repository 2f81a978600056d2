"""Routes of uploads: models and texts that clients announce, send in parts, and complete."""

from typing import Annotated

from fastapi import Query, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.dependencies import After, CreateOnce, DatabaseSession, Limit, Member, State
from api.http.problem_documents import problems
from api.http.routing import Router
from api.http.upload_parts import OCTETS, NextPart, take_part
from core.database import transaction
from core.service.registry import uploads
from core.service.registry.schemas import UploadBody
from core.service.registry.upload_completion import complete_upload
from core.storage.removal import remove_prefixes
from secateur_wire.base import Page
from secateur_wire.datasets import Dataset
from secateur_wire.errors import (
    Conflict,
    CorruptSafetensors,
    DiskFull,
    Forbidden,
    IdempotencyConflict,
    InvalidRequest,
    MissingTensors,
    NotFound,
    OffsetMismatch,
    PayloadTooLarge,
    PickleCheckpoint,
    QuotaExceeded,
    StoreUnavailable,
    Unauthenticated,
    Unavailable,
    UnsafeConfig,
    UnsupportedArchitecture,
    UnusableDataset,
    UnusableModel,
    UploadRefused,
)
from secateur_wire.models import Model
from secateur_wire.uploads import ReceivedPart, Upload, UploadKind, UploadStatus

router = Router(prefix="/v1/uploads", tags=["uploads"])


@router.post(
    "",
    status_code=201,
    response_model=Upload,
    responses=problems(
        Unauthenticated,
        Forbidden,
        Conflict,
        IdempotencyConflict,
        InvalidRequest,
        PayloadTooLarge,
        PickleCheckpoint,
        MissingTensors,
        UnusableModel,
        UnusableDataset,
        UploadRefused,
        QuotaExceeded,
        besides={200: {"model": Upload, "description": "The same upload is open already: go on with it"}},
    ),
)
def start_upload(body: UploadBody, caller: Member, state: State, once: CreateOnce) -> Response:
    """Announce a model or text with the size and SHA-256 of every file.

    Send the same announcement again to continue an upload.
    """

    def create(session: Session) -> tuple[int, BaseModel]:
        upload, is_new = uploads.start_upload(session, caller, body, state.settings)
        return (201 if is_new else 200), upload

    return once.answer(caller, body, create)


@router.get("", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def list_uploads(
    caller: Member,
    session: DatabaseSession,
    limit: Limit = 50,
    after: After = None,
    kind: Annotated[UploadKind | None, Query(description="What they are to become.")] = None,
    status: Annotated[UploadStatus | None, Query()] = None,
) -> Page[Upload]:
    """List the team's uploads, newest first: open ones, and recently ended ones."""
    return uploads.list_uploads(session, caller.team_id, limit=limit, after=after, kind=kind, status=status)


@router.get("/{upload_id}", responses=problems(Unauthenticated, Forbidden, NotFound))
def get_upload(upload_id: str, caller: Member, session: DatabaseSession) -> Upload:
    """Return an upload, with the number of received bytes of each file."""
    return uploads.get_upload(session, caller.team_id, upload_id)


@router.delete(
    "/{upload_id}",
    status_code=204,
    response_model=None,
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict),
)
def abort_upload(upload_id: str, caller: Member, state: State) -> None:
    """Abort an upload and remove its parts.

    The model or text of a complete upload stays.
    """
    with transaction(state.sessions) as session:
        prefixes = uploads.abort_upload(session, caller, upload_id)
    remove_prefixes(state.store, prefixes)


@router.put(
    "/{upload_id}/files/{path}",
    response_model=ReceivedPart,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    responses=problems(
        Unauthenticated,
        Forbidden,
        NotFound,
        OffsetMismatch,
        PayloadTooLarge,
        InvalidRequest,
        UploadRefused,
        UnusableModel,
        UnsafeConfig,
        CorruptSafetensors,
        StoreUnavailable,
        DiskFull,
    ),
)
async def send_part(
    request: Request,
    upload_id: str,
    path: str,
    caller: Member,
    state: State,
    offset: Annotated[int, Query(ge=0, le=2**53, description="Where the part begins: what was `received` so far.")],
) -> Response:
    """Send the next part of a file, at most `part_bytes` long.

    A part that does not fit changes nothing. If the file turns out to be invalid for a model, the upload fails, and its
    `error` says why.
    """
    return await take_part(request, state, caller, NextPart(upload_id, path, offset))


@router.post(
    "/{upload_id}/complete",
    name="complete_upload",
    status_code=201,
    response_model=Model | Dataset,
    responses=problems(
        Unauthenticated,
        Forbidden,
        NotFound,
        Conflict,
        UploadRefused,
        UnusableModel,
        UnsafeConfig,
        CorruptSafetensors,
        MissingTensors,
        UnsupportedArchitecture,
        UnusableDataset,
        Unavailable,
        StoreUnavailable,
        DiskFull,
        besides={200: {"model": Model | Dataset, "description": "The upload was complete already"}},
    ),
)
def complete(upload_id: str, caller: Member, state: State) -> Response:
    """Check every hash and create the model or dataset.

    This call may be repeated. It takes as long as reading all bytes once.

    Datasets are checked a few at a time, each team in turn. After ten seconds of waiting the answer is 503, with the
    numbers of running and waiting checks. Send the call again then; no file is hashed again.
    """
    document, is_new = complete_upload(
        state.sessions, state.store, caller, upload_id, state.settings, state.check_slots
    )
    return Response(document.model_dump_json(), 201 if is_new else 200, media_type="application/json")
