"""A job's events: a page of them, or a live stream."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.dependencies import State, Viewer
from api.problems import problems
from api.state import ApiState
from core.database import transaction
from core.errors import InvalidRequest, NotFound, Unauthenticated
from core.jobs.queue import status_of
from core.jobs.schemas import EventPage, JobEvent
from core.jobs.service import read_events
from core.jobs.states import TERMINAL
from core.teams.principal import Principal

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_BATCH = 20
"""Events of a stream that are held at once: each may be long, and there may be hundreds of streams."""
KEEP_ALIVE_SECONDS = 15
_SEQUENCE_LIMIT = 2**31 - 1
_EXAMPLE = (
    "id: 2\nevent: stage\n"
    'data: {"sequence":2,"type":"stage","created_at":"2026-03-02T09:30:00Z","attempt":1,"data":{"stage":"prune"}}\n\n'
)


@router.get(
    "/{job_id}/events",
    response_model=EventPage,
    responses=problems(
        Unauthenticated,
        NotFound,
        InvalidRequest,
        besides={200: {"content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}}}},
    ),
)
async def list_events(
    job_id: str,
    caller: Viewer,
    state: State,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    after: Annotated[int, Query(ge=0, le=_SEQUENCE_LIMIT, description="Number of the last event known.")] = 0,
    accept: Annotated[str, Header(include_in_schema=False)] = "application/json",
    last_event_id: Annotated[str | None, Header(description="Stream: number of the last event received.")] = None,
) -> Response | EventPage:
    """Events after a number, oldest first. As a stream it goes on until the job is over, and can be taken up again."""
    if "text/event-stream" not in accept:
        return await run_in_threadpool(_read, state, caller, job_id, after, limit)
    last = _last_event(last_event_id, after)
    await run_in_threadpool(_read, state, caller, job_id, last, 1)  # another team's job is 404 before a stream begins
    return EventSourceResponse(
        _stream(state, caller, job_id, last), ping=KEEP_ALIVE_SECONDS, headers={"Cache-Control": "no-store"}, sep="\n"
    )


def _last_event(header: str | None, after: int) -> int:
    if header is None:
        return after
    if not (header.isascii() and header.isdigit()) or int(header[:20]) > _SEQUENCE_LIMIT:
        raise InvalidRequest("Last-Event-ID is not the number of an event", param="Last-Event-ID")
    return int(header)


def _read(state: ApiState, caller: Principal, job_id: str, after: int, limit: int) -> EventPage:
    with transaction(state.sessions) as session:
        return read_events(session, caller.team_id, job_id, after=after, limit=limit)


def _news(state: ApiState, caller: Principal, job_id: str, after: int) -> tuple[EventPage, bool]:
    """The next events, and whether there will be no others: the state is read first, so that none slips between."""
    with transaction(state.sessions) as session:
        is_over = status_of(session, job_id) in TERMINAL
        page = read_events(session, caller.team_id, job_id, after=after, limit=_BATCH)
    return page, is_over and not page.has_more


async def _stream(state: ApiState, caller: Principal, job_id: str, last: int) -> AsyncIterator[ServerSentEvent]:
    with state.watch.watching(job_id) as news:
        while True:
            news.clear()
            # Few at a time: streams that all have news leave threads and database connections to other requests.
            page, is_over = await to_thread.run_sync(_news, state, caller, job_id, last, limiter=state.watch_slots)
            for event in page.data:
                yield _sent(event)
                last = event.sequence
                await asyncio.sleep(0)  # other requests have their turn, and a client that went away is noticed
            if is_over:
                return
            if page.has_more:
                continue
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    await news.wait()
            except TimeoutError:
                pass  # look again: it costs little, and a notification can be lost with its connection


def _sent(event: JobEvent) -> ServerSentEvent:
    return ServerSentEvent(id=str(event.sequence), event=event.type, data=event.model_dump_json())
