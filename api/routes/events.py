"""A job's events: a page of them, or a live stream."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.dependencies import State, Viewer
from api.problems import problems
from api.state import ApiState
from core.database import transaction
from core.errors import InvalidRequest, NotFound, Unauthenticated
from core.jobs.schemas import EventPage, JobEvent
from core.jobs.service import get_job, read_events
from core.jobs.states import TERMINAL
from core.teams.keys import Principal

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_BATCH = 200
KEEP_ALIVE_SECONDS = 15
_SEQUENCE_LIMIT = 2**31 - 1


@router.get(
    "/{job_id}/events",
    response_model=EventPage,
    responses=problems(
        Unauthenticated,
        NotFound,
        InvalidRequest,
        besides={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    ),
)
async def events(
    job_id: str,
    caller: Viewer,
    state: State,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    after: Annotated[int, Query(ge=0, le=_SEQUENCE_LIMIT, description="Number of the last event known.")] = 0,
    accept: Annotated[str, Header(description="text/event-stream for a live stream.")] = "application/json",
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


def _is_over(state: ApiState, caller: Principal, job_id: str, last: int) -> bool:
    """Whether the job has ended and `last` is its last event."""
    with transaction(state.sessions) as session:
        status = get_job(session, caller.team_id, job_id).status
        return status in TERMINAL and not read_events(session, caller.team_id, job_id, after=last, limit=1).data


async def _stream(state: ApiState, caller: Principal, job_id: str, last: int) -> AsyncIterator[ServerSentEvent]:
    with state.watch.watching(job_id) as news:
        while True:
            news.clear()
            page = await run_in_threadpool(_read, state, caller, job_id, last, _BATCH)
            for event in page.data:
                yield _sent(event)
                last = event.sequence
            if page.has_more:
                continue
            if await run_in_threadpool(_is_over, state, caller, job_id, last):
                return
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    await news.wait()
            except TimeoutError:
                pass  # look again: it costs little, and a notification can be lost with its connection


def _sent(event: JobEvent) -> ServerSentEvent:
    return ServerSentEvent(id=str(event.sequence), event=event.type, data=event.model_dump_json())
