"""Parts of uploads as requests bring them: taken in as a stream, onto disk, then into the store."""

import tempfile
from functools import partial
from typing import BinaryIO

from anyio import to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from api.problems import problem_response
from api.state import ApiState
from core.artifacts.store import full_disk_told
from core.database import transaction
from core.errors import InvalidRequest, OffsetMismatch, PayloadTooLarge, UploadRefused
from core.registry.schemas import ReceivedPart
from core.registry.upload_parts import ExpectedPart, expect_part, receive_part
from core.teams.principal import Principal

OCTETS = "application/octet-stream"
_WRITE_BYTES = 2**20


async def take_part(
    request: Request, state: ApiState, caller: Principal, upload_id: str, path: str, offset: int
) -> Response:
    """The answer to a request whose body is the next part of a file. Where another offset is the next, a problem
    document says so in `received`, whoever asks."""
    _require_octets(request)
    try:
        part = await to_thread.run_sync(_expect, state, caller.team_id, upload_id, path, offset)
        with tempfile.TemporaryFile() as spool:
            size = await _spool(request, part.most_bytes, spool)
            received = await _receive(state, caller, part, spool, size)
    except OffsetMismatch as error:
        return problem_response(error, request.url.path, received=error.received)
    except ClientDisconnect:
        raise UploadRefused("the connection ended before the part did") from None
    return JSONResponse(received.model_dump())


async def send_file(
    state: ApiState, caller: Principal, upload_id: str, path: str, start: int, content: BinaryIO
) -> None:
    """Send a file that lies here, part by part, from `start` on."""
    content.seek(start)
    while True:
        part = await to_thread.run_sync(_expect, state, caller.team_id, upload_id, path, start)
        with tempfile.TemporaryFile() as spool:
            size = await to_thread.run_sync(_copy, content, spool, part.most_bytes)
            start = (await _receive(state, caller, part, spool, size)).received
        if start >= part.file.bytes:
            return


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


async def _receive(state: ApiState, caller: Principal, part: ExpectedPart, spool: BinaryIO, size: int) -> ReceivedPart:
    receive = partial(receive_part, state.sessions, state.store, state.settings, caller, part, spool, size)
    return await to_thread.run_sync(receive, limiter=state.part_slots)


def _copy(content: BinaryIO, spool: BinaryIO, most: int) -> int:
    size = 0
    with full_disk_told():
        while size < most and (chunk := content.read(min(_WRITE_BYTES, most - size))):
            size += spool.write(chunk)
    return size
