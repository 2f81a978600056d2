"""The services' way to the S3 store, which can fail as stores do."""

import asyncio
import re
import threading
from typing import Literal

from bench.chaos.wires import Network

Mood = Literal["well", "error500", "slow", "half_body"]

SLOW_SECONDS = 1.5
"""Until the store begins to answer, where it is slow; then it gives a piece ten times a second."""
_SLOW_BYTES = 8192
_CHUNK_BYTES = 2**16
_REFUSED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>InternalError</Code><Message>We encountered an internal error. Please try again.</Message></Error>"""


class Gate:
    """A way to a store at a port of loopback, one request for each connection, in one of the moods.

    `error500` answers every request with S3's InternalError; `slow` has it wait for its answer; `half_body` ends the
    connection after half of the request's body, or of the answer's.
    """

    def __init__(self, network: Network, store_port: int) -> None:
        self._network = network
        self._store_port = store_port
        self._mood: Mood = "well"
        self.alone = threading.RLock()
        """Held by whoever turns it."""
        self.port = network.open(self)

    def turn(self, mood: Mood) -> None:
        """Requests that come from now on find it so."""

        async def change() -> None:
            self._mood = mood

        self._network.do(change())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        mood = self._mood
        size = _length(head)
        if re.search(rb"(?i)\r\nexpect: *100-continue", head):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await writer.drain()
        if mood == "half_body" and size > 1:  # the store never hears of it: what it would do with half is its own
            await reader.readexactly(size // 2)
            return
        body = await reader.readexactly(size)
        if mood == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        if mood == "error500":
            await _answer(writer, 500, b"" if head.startswith(b"HEAD ") else _REFUSED)
            return
        answer = await self._asked(head, body)
        said, _, content = answer.partition(b"\r\n\r\n")
        await _send(writer, _closing(said), 0, _CHUNK_BYTES)
        is_half = mood == "half_body" and len(content) > 1
        pause, piece = (0.1, _SLOW_BYTES) if mood == "slow" else (0, _CHUNK_BYTES)
        await _send(writer, content[: len(content) // 2] if is_half else content, pause, piece)
        writer.close()
        await writer.wait_closed()

    async def _asked(self, head: bytes, body: bytes) -> bytes:
        """Return the store's answer, to its end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._store_port)
        try:
            writer.write(_closing(re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", head[:-4])) + body)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    assert found is not None or b"chunked" not in head.lower(), "a body without a length is nothing our services send"
    return int(found[1]) if found else 0


def _closing(head: bytes) -> bytes:
    """The head of a message after which the connection ends."""
    return re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head) + b"\r\nConnection: close\r\n\r\n"


async def _answer(writer: asyncio.StreamWriter, status: int, content: bytes) -> None:
    head = f"HTTP/1.1 {status} Internal Server Error\r\nContent-Type: application/xml\r\nContent-Length: {len(content)}"
    await _send(writer, _closing(head.encode()) + content, 0, _CHUNK_BYTES)
    writer.close()
    await writer.wait_closed()


async def _send(writer: asyncio.StreamWriter, data: bytes, pause: float, piece: int) -> None:
    for start in range(0, len(data), piece):
        writer.write(data[start : start + piece])
        await writer.drain()
        await asyncio.sleep(pause)
