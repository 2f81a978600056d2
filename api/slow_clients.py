"""Time limits for slow clients: for the headers and the body of a request, and for reading an answer.

A client that sends its request very slowly, or does not read the answer, holds a connection and mostly a task;
thousands of them would use up a server. uvicorn limits only the pause between requests. So `BoundedConnection` limits
the headers and the reading (`uvicorn --http api.slow_clients:BoundedConnection`), and `paced` the body.
"""

import asyncio
import socket
from typing import Any, Final

import h11
from starlette.types import Message, Receive
from uvicorn.protocols.http.h11_impl import H11Protocol

from core.settings import get_settings
from secateur_wire.errors import SlowRequest

BYTES_PER_SECOND: Final = 16 * 1024
"""Slowest accepted speed of a body, after the grace time."""


def paced(receive: Receive, grace_seconds: float) -> Receive:
    """Wrap `receive` so that it raises SlowRequest for a body that arrives too slowly.

    The body may take `grace_seconds`, and a second for each `BYTES_PER_SECOND` of its length. After the body (a stream
    that waits for its client to disconnect) there is no limit.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    size = 0
    is_complete = False

    async def receive_paced() -> Message:
        nonlocal size, is_complete
        if is_complete:
            return await receive()
        try:
            async with asyncio.timeout_at(started + grace_seconds + size / BYTES_PER_SECOND):
                message = await receive()
        except TimeoutError:
            raise SlowRequest(f"of the body {size} bytes came in {loop.time() - started:.0f} s") from None
        size += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        return message

    return receive_paced


class BoundedConnection(H11Protocol):
    """Connection of uvicorn that is closed when its client is too slow.

    It is closed after `slow_client_seconds` in which a request's headers were not complete, the client kept sending a
    body that was refused unread, or it read nothing of its answer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seconds = get_settings().slow_client_seconds
        self._abort_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connected = transport.get_extra_info("socket")
        if hasattr(socket, "TCP_USER_TIMEOUT") and connected.family in (socket.AF_INET, socket.AF_INET6):
            # Linux only: the connection ends if sent data is not acknowledged, or is held back by a full window.
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._seconds * 1000))
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Start or stop the timer, which runs from a request's first byte (or from connecting) to its route."""
        is_served = self.cycle is not None and not self.cycle.response_complete
        is_idle = self.cycle is not None and self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if is_served or is_idle:
            self._stop_timer()
        elif self._abort_timer is None and not self.transport.is_closing():
            self._abort_timer = self.loop.call_later(self._seconds, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None
