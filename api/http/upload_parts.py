"""Parts of uploads in requests: each is streamed into the store."""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from anyio import CancelScope, to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from api.state import ApiState
from core.database import transaction
from core.service.registry.upload_parts import ExpectedPart, expect_part, new_place, receive_part, require_size
from core.service.teams.principal import Principal
from core.storage import Incoming, UploadPart
from secateur_wire.errors import InvalidRequest, PayloadTooLarge, UploadRefused
from secateur_wire.uploads import ReceivedPart

OCTETS = "application/octet-stream"
_WRITE_BYTES = 2**20


@dataclass(frozen=True)
class NextPart:
    """Place of an upload's next part: its `offset` in bytes in the file at `path`."""

    upload_id: str
    path: str
    offset: int


async def take_part(request: Request, state: ApiState, caller: Principal, place: NextPart) -> Response:
    """Answer a request whose body is the next part of a file.

    Where the file continues at another offset, the answer is a problem document with that offset in `received`,
    for every kind of caller.
    """
    _require_octets(request)
    try:
        part = await to_thread.run_sync(_expect, state, caller.team_id, place)
        _require_declared_size(request, part)
        received = await _take(state, caller, part, request.stream())
    except ClientDisconnect:
        raise UploadRefused("the connection ended before the part did") from None
    return JSONResponse(received.model_dump())


async def send_file(state: ApiState, caller: Principal, place: NextPart, content: BinaryIO) -> None:
    """Send a local file to an upload, part by part, from `place` on."""
    while True:
        part = await to_thread.run_sync(_expect, state, caller.team_id, place)
        received = (await _take(state, caller, part, _chunks(content, place.offset, part.most_bytes))).received
        if received >= part.file.bytes:
            return
        place = replace(place, offset=received)


def _require_octets(request: Request) -> None:
    sent = request.headers.get("content-type", OCTETS).partition(";")[0].strip().lower()
    if sent != OCTETS:
        raise InvalidRequest(f"a part is sent as {OCTETS}, not as {sent}", param="Content-Type")


def _expect(state: ApiState, team_id: str, place: NextPart) -> ExpectedPart:
    with transaction(state.sessions) as session:
        return expect_part(session, team_id, place.upload_id, place.path, place.offset)


def _require_declared_size(request: Request, part: ExpectedPart) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > part.most_bytes:
        raise _too_large(part)


def _too_large(part: ExpectedPart) -> PayloadTooLarge:
    return PayloadTooLarge(f"a part of this upload has at most {part.most_bytes} bytes")


async def _take(state: ApiState, caller: Principal, part: ExpectedPart, chunks: AsyncIterable[bytes]) -> ReceivedPart:
    """Store a part at the client's speed, without holding a thread, and count it. A failed part leaves nothing."""
    place = new_place(part)
    incoming = await to_thread.run_sync(state.store.incoming, part.prefix, place)
    try:
        size = await _write(incoming, part, chunks)
        require_size(part, size)
        return await state.part_slots.run(
            caller.team_id, _finish, state, caller, part, incoming, UploadPart(place, size)
        )
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(incoming.discard)


async def _write(incoming: Incoming, part: ExpectedPart, chunks: AsyncIterable[bytes]) -> int:
    """Write a part and return its number of bytes. Raises PayloadTooLarge."""
    size = 0
    waiting = bytearray()
    async for chunk in chunks:
        size += len(chunk)
        if size > part.most_bytes:
            raise _too_large(part)
        waiting += chunk
        if len(waiting) >= _WRITE_BYTES:
            await to_thread.run_sync(incoming.write, bytes(waiting))
            waiting.clear()
    await to_thread.run_sync(incoming.write, bytes(waiting))
    return size


def _finish(
    state: ApiState, caller: Principal, part: ExpectedPart, incoming: Incoming, stored: UploadPart
) -> ReceivedPart:
    incoming.finish()
    return receive_part(state.sessions, state.store, state.settings, caller, part, stored)


async def _chunks(content: BinaryIO, start: int, most: int) -> AsyncIterator[bytes]:
    """Yield at most so many bytes of a local file."""
    content.seek(start)
    while most and (chunk := await to_thread.run_sync(content.read, min(_WRITE_BYTES, most))):
        most -= len(chunk)
        yield chunk
