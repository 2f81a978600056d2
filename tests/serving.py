"""Applications lent to tests, and one behind a real server on loopback, in a thread of the test's process."""

import asyncio
import contextlib
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from api.app import create_app
from core.settings import Settings

_BUILT_IN = (
    "max_body_bytes",
    "form_upload_bytes",
    "trigger_payload_bytes",
    "slow_client_seconds",
    "metrics_port",
    "trusted_proxies",
)
"""Settings that an application is built with; all others it reads anew whenever it starts."""
_idle: dict[tuple[object, ...], list[FastAPI]] = defaultdict(list)
"""Applications that no test holds, by the settings they were built with."""


@contextmanager
def lent_app(settings: Settings) -> Iterator[FastAPI]:
    """Lend an application that was not started, used by an earlier test where there is one: of each, the first request
    builds all routes, which takes longer than most tests.
    """
    idle = _idle[tuple(str(getattr(settings, name)) for name in _BUILT_IN)]
    app = idle.pop() if idle else create_app(settings)
    app.state.settings = settings
    yield app
    idle.append(app)


class _PromptServer(uvicorn.Server):
    """A server that ends as soon as its requests have: uvicorn's own looks ten times a second, two or three times over,
    and there are hundreds of servers in a run.
    """

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
    app: ASGIApp, port: int = 0, *, log_level: str = "warning", grace_seconds: int | None = None
) -> Iterator[str]:
    """The URL at which the application is served inside the `with`. Requests under way then have `grace_seconds` left
    (None: as long as they take).
    """
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_level=log_level,
        timeout_graceful_shutdown=grace_seconds,
        timeout_keep_alive=300,  # a test that waits longer than uvicorn's five seconds would meet a closed connection
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
        thread.join(timeout=60)
        assert not thread.is_alive(), "the server did not end"
