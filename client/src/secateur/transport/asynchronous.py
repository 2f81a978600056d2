"""Transport that waits in the event loop."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
import httpx
from httpx_sse import EventSource, ServerSentEvent

from secateur.configuration import Configuration
from secateur.transport import Arguments, Result, Stream, Transport
from secateur.transport.retries import RetryPolicy


class AsyncTransport(Transport):
    """Transport that waits in the event loop (asyncio or trio)."""

    def __init__(self, configuration: Configuration, retry_policy: RetryPolicy) -> None:
        super().__init__(configuration, retry_policy)
        self._http = httpx.AsyncClient(**self._options)

    async def close(self) -> None:
        await self._http.aclose()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def in_thread(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        return await anyio.to_thread.run_sync(lambda: function(*args, **kwargs))

    def _build(self, method: str, path: str, **parts: Any) -> httpx.Request:
        return self._http.build_request(method, path, **parts)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        return await self._http.send(request)

    @contextlib.asynccontextmanager
    async def _open(self, request: httpx.Request, follow_redirects: bool) -> AsyncIterator[Stream]:
        response = await self._http.send(request, stream=True, follow_redirects=follow_redirects)
        try:
            yield _AsyncStream(response)
        finally:
            await response.aclose()


@dataclass(frozen=True)
class _AsyncStream:
    response: httpx.Response

    async def read(self) -> None:
        await self.response.aread()

    def chunks(self) -> AsyncIterator[bytes]:
        return self.response.aiter_bytes()

    def events(self) -> AsyncIterator[ServerSentEvent]:
        return EventSource(self.response).aiter_sse()
