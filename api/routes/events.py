"""A job's events: a page of them, or a live stream."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Header, Query
from sqlalchemy.orm import Session
from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.dependencies import State, Viewer
from api.events.stream import LARGEST_SEQUENCE, event_stream, last_event
from api.http.problem_documents import problems
from api.http.routing import Router
from api.state import ApiState
from core.database import transaction
from core.errors import InvalidRequest, NotFound, Unauthenticated
from core.service.jobs.service import read_events
from core.service.teams.principal import Principal
from secateur_wire.jobs import EventPage

router = Router(prefix="/v1/jobs", tags=["jobs"])

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
    after: Annotated[int, Query(ge=0, le=LARGEST_SEQUENCE, description="Number of the last event known.")] = 0,
    accept: Annotated[str, Header(include_in_schema=False)] = "application/json",
    last_event_id: Annotated[str | None, Header(description="Stream: number of the last event received.")] = None,
) -> Response | EventPage:
    """Events after a number, oldest first. As a stream it goes on until the job is over, and can be taken up again."""
    if "text/event-stream" not in accept:
        return await run_in_threadpool(_read, state, caller, job_id, after, limit)
    last = last_event(last_event_id, after)
    await run_in_threadpool(_read, state, caller, job_id, last, 1)  # another team's job is 404 before a stream begins
    return event_stream(state, caller.team_id, job_id, last, _sent)


def _read(state: ApiState, caller: Principal, job_id: str, after: int, limit: int) -> EventPage:
    with transaction(state.sessions) as session:
        return read_events(session, caller.team_id, job_id, after=after, limit=limit)


def _sent(session: Session, page: EventPage, is_over: bool) -> Sequence[ServerSentEvent]:
    """Return a message for each event."""
    return [
        ServerSentEvent(id=str(event.sequence), event=event.type, data=event.model_dump_json()) for event in page.data
    ]
