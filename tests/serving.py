"""An application behind a real server on loopback, in a thread of the test's process."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI


class _PromptServer(uvicorn.Server):
    """A server that ends as soon as its requests have: uvicorn's own looks ten times a second, two or three times over,
    and there are hundreds of servers in a run."""

    async def main_loop(self) -> None:
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self.server_state.connections or self.server_state.tasks:
                    await asyncio.sleep(0.005)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()


@contextmanager
def served(
    app: FastAPI, port: int = 0, *, log_level: str = "warning", grace_seconds: int | None = None
) -> Iterator[str]:
    """The URL at which the application is served inside the `with`. Requests under way then have `grace_seconds` left
    (None: as long as they take)."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level=log_level, timeout_graceful_shutdown=grace_seconds
    )
    server = _PromptServer(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended while it started"
            time.sleep(0.002)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive(), "the server did not end"
