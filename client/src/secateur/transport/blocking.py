"""Transport that waits in the calling thread, and the function that runs coroutines over it."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from secateur.configuration import Configuration
from secateur.transport import Arguments, Result, Stream, Transport
from secateur.transport.retries import RetryPolicy


class BlockingTransport(Transport):
    """Transport that waits in the calling thread, for one thread at a time. None of its coroutines ever suspends."""

    def __init__(self, configuration: Configuration, retry_policy: RetryPolicy) -> None:
        super().__init__(configuration, retry_policy)
        self._http = httpx.Client(**self._options)

    async def close(self) -> None:
        self._http.close()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def in_thread(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        return function(*args, **kwargs)

    def _build(self, method: str, path: str, **parts: Any) -> httpx.Request:
        return self._http.build_request(method, path, **parts)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        return self._http.send(request)

    @contextlib.asynccontextmanager
    async def _open(self, request: httpx.Request, follow_redirects: bool) -> AsyncIterator[Stream]:
        response = self._http.send(request, stream=True, follow_redirects=follow_redirects)
        try:
            yield _BlockingStream(response)
        finally:
            response.close()


@dataclass(frozen=True)
class _BlockingStream:
    response: httpx.Response

    async def read(self) -> None:
        self.response.read()

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self.response.iter_bytes():
            yield chunk

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        for event in EventSource(self.response).iter_sse():
            yield event


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that never suspends (one over `BlockingTransport`) and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    coroutine.close()
    raise AssertionError("a coroutine over BlockingTransport suspended")
