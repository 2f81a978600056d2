"""Streams of a job's events: the loop behind REST's stream and the portal's pages."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from anyio import to_thread
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from api.state import ApiState
from core.database import transaction
from core.service.jobs.queue import status_of
from core.service.jobs.service import read_events
from core.service.jobs.states import TERMINAL
from core.service.teams.principal import Principal
from secateur_wire.errors import InvalidRequest, Unauthenticated
from secateur_wire.jobs import EventPage

_FIRST, _MOST, _CHARACTERS = 4, 20, 131_072
"""Events that a stream reads first and at most, and the length of the messages that it is to hold: each may be long,
and there may be hundreds of streams that nobody reads."""
KEEP_ALIVE_SECONDS = 15
LARGEST_SEQUENCE = 2**31 - 1

Turn = Callable[[Session, EventPage, bool], Sequence[ServerSentEvent]]
"""Function that turns a page of new events, which may be empty, into messages; its flag says that no further events
will come. It runs in a thread."""


def last_event(header: str | None, after: int) -> int:
    """Return the event number to continue after: `Last-Event-ID` if sent, else `after`. Raises InvalidRequest."""
    if header is None:
        return after
    if not (header.isascii() and header.isdigit()) or int(header[:20]) > LARGEST_SEQUENCE:
        raise InvalidRequest("Last-Event-ID is not the number of an event", param="Last-Event-ID")
    return int(header)


@dataclass(frozen=True)
class FollowedJob:
    """Job whose events after event `last` are followed by a caller.

    `authenticate` is called again before events are read: it returns the caller of now, or raises Unauthenticated.
    """

    caller: Principal
    authenticate: Callable[[Session], Principal]
    job_id: str
    last: int


class _CountedStream(EventSourceResponse):
    """Stream that is counted while it is open. Raises RateLimited before it begins."""

    def __init__(self, messages: AsyncIterator[ServerSentEvent], count: AbstractContextManager[None]) -> None:
        super().__init__(messages, ping=KEEP_ALIVE_SECONDS, headers={"Cache-Control": "no-store"}, sep="\n")
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._count:
            await super().__call__(scope, receive, send)


def event_stream(
    state: ApiState, followed: FollowedJob, turn: Turn, *, gather_seconds: float = 0.0
) -> EventSourceResponse:
    """Answer with the stream of a job's events, until the job is over or the caller has no right to them any more.

    Events within `gather_seconds` of one another are read together.
    """
    return _CountedStream(_follow(state, followed, turn, gather_seconds), state.streams.one(followed.caller))


async def _follow(
    state: ApiState, followed: FollowedJob, turn: Turn, gather_seconds: float
) -> AsyncIterator[ServerSentEvent]:
    team_id, job_id, last = followed.caller.team_id, followed.job_id, followed.last

    def look(after: int, limit: int) -> tuple[deque[ServerSentEvent], int, bool, bool, int]:
        with transaction(state.sessions) as session:
            if followed.authenticate(session).team_id != team_id:
                raise Unauthenticated("you act for another team now")
            # Read before the events, so that no event is missed in between.
            is_over = status_of(session, job_id) in TERMINAL
            page = read_events(session, team_id, job_id, after=after, limit=limit)
            is_over = is_over and not page.has_more
            messages = deque(turn(session, page, is_over))
            if length := sum(len(str(each.data)) for each in messages):
                limit = min(_MOST, max(1, _CHARACTERS * len(page.data) // length))
            return messages, page.next_after, page.has_more, is_over, limit

    limit = _FIRST
    with state.listener.watching(job_id) as new_events:
        while True:
            new_events.clear()
            try:
                # Few at a time, so that streams leave threads and database connections to other requests.
                messages, last, has_more, is_over, limit = await to_thread.run_sync(
                    look, last, limit, limiter=state.watch_slots
                )
            except Unauthenticated:
                return
            while messages:
                yield messages.popleft()
                await asyncio.sleep(0)  # Other requests get their turn, and a disconnected client is noticed.
            if is_over:
                return
            if has_more:
                continue
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    await new_events.wait()
            except TimeoutError:
                continue  # Look again: it costs little, and a notification may be lost with its connection.
            if gather_seconds:
                await asyncio.sleep(gather_seconds)
