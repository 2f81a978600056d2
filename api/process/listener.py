"""Listener for new job events: one LISTEN connection per process, which wakes all its watchers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import psycopg
import structlog
from psycopg.conninfo import make_conninfo

from core.database import database_url
from core.database_url import libpq_url
from core.keepalives import postgres_keepalives
from core.service.jobs.queue import EVENT_CHANNEL
from core.settings import Settings

log = structlog.get_logger()

_RECONNECT_SECONDS = 1.0


class EventListener:
    """Watchers of jobs. Lifecycle: `running()` around the application, `watching(job)` around each stream.

    A notification carries no data: a woken watcher reads the events table. So a lost connection loses no event: every
    new connection wakes all watchers.
    """

    def __init__(self, settings: Settings) -> None:
        url = libpq_url(database_url(settings))
        self.conninfo = make_conninfo(url, **postgres_keepalives(settings))
        self._watchers: dict[str, set[asyncio.Event]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        listener = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener

    @contextlib.contextmanager
    def watching(self, job_id: str) -> Iterator[asyncio.Event]:
        """Yield a flag that is set whenever the job has new events. Watch before reading the existing events."""
        event = asyncio.Event()
        self._watchers.setdefault(job_id, set()).add(event)
        try:
            yield event
        finally:
            watchers = self._watchers[job_id]
            watchers.discard(event)
            if not watchers:
                del self._watchers[job_id]

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self.conninfo, autocommit=True) as connection:
                    await connection.execute(f"LISTEN {EVENT_CHANNEL}")
                    self._wake(*self._watchers)
                    async for notification in connection.notifies():
                        self._wake(notification.payload)
            except psycopg.Error as error:
                log.warning("live events interrupted", error=str(error))
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _wake(self, *job_ids: str) -> None:
        for job_id in job_ids:
            for event in self._watchers.get(job_id, ()):
                event.set()
