"""`AsyncClient` behind the face of `Client`, so that one test holds for both."""

import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal

from secateur import AsyncClient, Client


class _Facing:
    """Calls each method in the event loop of a portal and waits for it."""

    def __init__(self, portal: BlockingPortal, client: AsyncClient) -> None:
        self._portal = portal
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            if inspect.iscoroutinefunction(method):
                return self._portal.call(functools.partial(method, *args, **kwargs))
            return self._items(method(*args, **kwargs))

        return call

    def _items(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(items)

        while True:
            try:
                yield self._portal.call(following)
            except StopAsyncIteration:
                return


@contextmanager
def facing_as_client(url: str, key: str, **options: Any) -> Iterator[Client]:
    """A running event loop with an `AsyncClient` in it, to be used like a `Client`."""

    async def opened() -> AsyncClient:
        return AsyncClient(url, key, **options)

    with start_blocking_portal() as portal:
        client = portal.call(opened)
        try:
            yield cast(Client, _Facing(portal, client))
        finally:
            portal.call(client.close)
