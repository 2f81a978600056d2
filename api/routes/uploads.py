"""Models and texts that clients send: announced, sent in parts, completed."""

import tempfile
from functools import partial
from typing import Annotated, BinaryIO

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from api.dependencies import After, CreateOnce, DatabaseSession, Limit, Member, State
from api.problems import problem_response, problems
from api.state import ApiState
from core.artifacts.store import full_disk_told
from core.database import transaction
from core.errors import (
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
from core.pages import Page
from core.registry import uploads
from core.registry.deletion import forget
from core.registry.schemas import Dataset, Model, ReceivedPart, Upload, UploadBody
from core.registry.upload_completion import complete_upload
from core.registry.upload_parts import ExpectedPart, expect_part, receive_part

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

OCTETS = "application/octet-stream"
_WRITE_BYTES = 2**20


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
def start_upload(
    body: UploadBody, caller: Member, session: DatabaseSession, state: State, once: CreateOnce
) -> Response:
    """Announce a model or text with the size and SHA-256 of every file. Send the same again to go on with it."""

    def create() -> tuple[int, BaseModel]:
        upload, is_new = uploads.start_upload(session, caller, body, state.settings)
        return (201 if is_new else 200), upload

    return once.answer(caller, body, create)


@router.get("", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def list_uploads(caller: Member, session: DatabaseSession, limit: Limit = 50, after: After = None) -> Page[Upload]:
    """The team's uploads, newest first: those open, and those that ended not long ago."""
    return uploads.list_uploads(session, caller.team_id, limit=limit, after=after)


@router.get("/{upload_id}", responses=problems(Unauthenticated, Forbidden, NotFound))
def get_upload(upload_id: str, caller: Member, session: DatabaseSession) -> Upload:
    """An upload, and how much of each file is there."""
    return uploads.get_upload(session, caller.team_id, upload_id)


@router.delete(
    "/{upload_id}",
    status_code=204,
    response_model=None,
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict),
)
def abort_upload(upload_id: str, caller: Member, state: State) -> None:
    """Give an upload up: its parts are removed. The model or text of a complete one stays."""
    with transaction(state.sessions) as session:
        prefixes = uploads.abort_upload(session, caller, upload_id)
    forget(state.store, prefixes)


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
    """Send the next part of a file, at most `part_bytes` long. What is refused leaves all before it as it was."""
    _require_octets(request)
    try:
        part = await to_thread.run_sync(_expect, state, caller.team_id, upload_id, path, offset)
        with tempfile.TemporaryFile() as spool:
            size = await _spool(request, part.most_bytes, spool)
            receive = partial(receive_part, state.sessions, state.store, state.settings, part, spool, size)
            received = await to_thread.run_sync(receive, limiter=state.part_slots)
    except OffsetMismatch as error:
        return problem_response(error, request.url.path, received=error.received)
    except ClientDisconnect:
        raise UploadRefused("the connection ended before the part did") from None
    return JSONResponse(received.model_dump())


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
    """Check every hash and make the model or dataset. May be repeated; takes as long as reading all bytes once does."""
    document, is_new = complete_upload(state.sessions, state.store, caller, upload_id)
    return Response(document.model_dump_json(), 201 if is_new else 200, media_type="application/json")


def _require_octets(request: Request) -> None:
    sent = request.headers.get("content-type", OCTETS).partition(";")[0].strip().lower()
    if sent != OCTETS:
        raise InvalidRequest(f"a part is sent as {OCTETS}, not as {sent}", param="Content-Type")


def _expect(state: ApiState, team_id: str, upload_id: str, path: str, offset: int) -> ExpectedPart:
    with transaction(state.sessions) as session:
        return expect_part(session, team_id, upload_id, path, offset)


async def _spool(request: Request, most: int, spool: BinaryIO) -> int:
    """Take a part in as slowly as it comes: on disk, with no thread held meanwhile. Raises PayloadTooLarge."""
    too_large = PayloadTooLarge(f"a part of this upload has at most {most} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise too_large
    size = 0
    waiting = bytearray()
    with full_disk_told():
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                raise too_large
            waiting += chunk
            if len(waiting) >= _WRITE_BYTES:
                await to_thread.run_sync(spool.write, bytes(waiting))
                waiting.clear()
        spool.write(waiting)
    return size
