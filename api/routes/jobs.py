"""Routes of jobs: submit, read, cancel, retry; and their events as pages or as a live stream."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import BackgroundTasks, Header, Query, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session
from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.dependencies import (
    After,
    CreateOnce,
    DatabaseSession,
    Limit,
    Member,
    Quality,
    Search,
    State,
    Viewer,
    authentication_of,
)
from api.events.after_commit import hint_after_commit
from api.events.stream import LARGEST_SEQUENCE, FollowedJob, event_stream, last_event
from api.http.problem_documents import problems
from api.http.routing import Router
from api.state import ApiState
from core import telemetry
from core.database import transaction
from core.pipeline.reports.how_to_run import FOLDER
from core.service.jobs import comparison, service
from core.service.jobs.alternatives import job_with_measured
from core.service.jobs.comparison import FEWEST, MOST, Comparison
from core.service.jobs.random_baseline import with_random_baseline
from core.service.jobs.resolution.hub_lookup import HUB_ERRORS
from core.service.jobs.schemas import Job, JobBody
from core.service.jobs.service import read_events
from core.service.jobs.waiting import with_waiting_reason, with_waiting_reasons
from core.service.publications.retry import retry
from core.service.teams.principal import Principal
from secateur_wire.base import Page
from secateur_wire.errors import (
    Conflict,
    DoesNotFit,
    Forbidden,
    IdempotencyConflict,
    IndivisibleWidth,
    InvalidParameters,
    InvalidPattern,
    InvalidRequest,
    InvalidSparsity,
    NotFound,
    QuotaExceeded,
    TooFewImages,
    TooLittleText,
    Unauthenticated,
    UnknownDataset,
    UnknownMethod,
    UnknownModel,
    UnknownQueue,
)
from secateur_wire.jobs import AttemptPage, EventPage, JobSort, WayToRun
from secateur_wire.states import JobStatus
from secateur_wire.sweeps import Cost

router = Router(prefix="/v1/jobs", tags=["jobs"])

BODY_ERRORS = (
    UnknownModel,
    UnknownDataset,
    InvalidSparsity,
    InvalidPattern,
    InvalidParameters,
    IndivisibleWidth,
    TooFewImages,
    TooLittleText,
    DoesNotFit,
)
"""Errors of the model, texts, sparsity and parameters in a job body."""
_EXAMPLE = (
    "id: 2\nevent: stage\n"
    'data: {"sequence":2,"type":"stage","created_at":"2026-03-02T09:30:00Z","attempt":1,"data":{"stage":"prune"}}\n\n'
)
_METADATA = "metadata."


SUBMIT_ERRORS = (
    InvalidRequest,
    UnknownMethod,
    *BODY_ERRORS,
    UnknownQueue,
    QuotaExceeded,
    *HUB_ERRORS,
)
"""Errors of a job body."""


@router.post(
    "",
    status_code=201,
    response_model=Job,
    responses=problems(
        Unauthenticated,
        Forbidden,
        IdempotencyConflict,
        *SUBMIT_ERRORS,
    ),
)
def submit_job(
    body: JobBody,
    caller: Member,
    state: State,
    once: CreateOnce,
    background: BackgroundTasks,
) -> Response:
    """Queue a job. It is checked completely first: every queued job can run."""
    findings = state.hub.of(caller.team_id, body)

    def create(session: Session) -> tuple[int, BaseModel]:
        with telemetry.span("job.submit"):
            job = service.submit(state.request(session, caller, findings), body)
        hint_after_commit(background, state, job)
        return 201, job

    return once.answer(caller, body, create)


@router.get(
    "",
    responses=problems(Unauthenticated, InvalidRequest),
    openapi_extra={
        "parameters": [
            {
                "name": "metadata.{key}",
                "in": "query",
                "required": False,
                "schema": {"type": "string"},
                "description": "Jobs whose metadata has this value under `key`; may be given for several keys.",
            }
        ]
    },
)
def list_jobs(
    request: Request,
    caller: Viewer,
    session: DatabaseSession,
    state: State,
    limit: Limit = 50,
    after: After = None,
    status: JobStatus | None = None,
    method: Annotated[str | None, Query(max_length=100)] = None,
    model: Annotated[str | None, Query(max_length=300)] = None,
    search: Search = None,
    sort: Annotated[
        JobSort,
        Query(description="status: as a job's life goes, queued first. finished: those that ended last come first."),
    ] = "newest",
) -> Page[Job]:
    """List the team's jobs that match every filter, newest first or by `sort`; equal ones newest first."""
    metadata = {
        name.removeprefix(_METADATA): value
        for name, value in request.query_params.items()
        if name.startswith(_METADATA)
    }
    page = service.list_jobs(
        session,
        caller.team_id,
        limit=limit,
        after=after,
        status=status,
        method=method,
        model=model,
        metadata=metadata,
        search=search,
        sort=sort,
    )
    return page.model_copy(update={"data": with_waiting_reasons(session, page.data, state.settings)})


@router.get("/compare", responses=problems(Unauthenticated, NotFound, InvalidRequest))
def compare_jobs(
    caller: Viewer,
    session: DatabaseSession,
    job: Annotated[list[str], Query(min_length=FEWEST, max_length=MOST, description="Ids of jobs, each once.")],
    quality: Quality = None,
    cost: Cost | None = None,
) -> Comparison:
    """Compare jobs side by side.

    The answer has every field and figure with a flag for differences, quality against cost with the Pareto front, and
    the removed share of each layer. A job without a report is shown with the available figures.
    """
    return comparison.compare_jobs(session, caller.team_id, job, quality=quality, cost=cost)


@router.get("/{job_id}", responses=problems(Unauthenticated, NotFound))
def get_job(job_id: str, caller: Viewer, session: DatabaseSession, state: State) -> Job:
    """Return one job."""
    job = job_with_measured(session, caller.team_id, service.get_job(session, caller.team_id, job_id))
    job = with_random_baseline(session, caller.team_id, job)
    return with_waiting_reason(session, job, state.settings)


@router.post("/{job_id}/cancel", responses=problems(Unauthenticated, Forbidden, NotFound, Conflict))
def cancel_job(job_id: str, caller: Member, session: DatabaseSession) -> Job:
    """Cancel a queued job at once, or ask a running job to stop. Idempotent."""
    return service.cancel(session, caller, job_id)


@router.post(
    "/{job_id}/retry",
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict, UnknownMethod, InvalidParameters, QuotaExceeded),
)
def retry_job(job_id: str, caller: Member, session: DatabaseSession, state: State, background: BackgroundTasks) -> Job:
    """Queue a failed or cancelled job again; it continues after its last complete block. Idempotent.

    The figures, report and artifact of an attempt that missed a gate stay until another attempt has stored its own. A
    job is not retried while its artifact is being published.
    """
    job = retry(session, caller, job_id, max_attempts=state.settings.max_attempts)
    if job.status == "queued":
        hint_after_commit(background, state, job)
    return with_waiting_reason(session, job, state.settings)


@router.get("/{job_id}/attempts", responses=problems(Unauthenticated, NotFound, InvalidRequest))
def list_attempts(
    job_id: str,
    caller: Viewer,
    session: DatabaseSession,
    limit: Limit = 50,
    after: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="`next_after` of the page before.")] = None,
) -> AttemptPage:
    """List the attempts at a job, newest first: the worker, the outcome, and the used resources of each."""
    return service.list_attempts(session, caller.team_id, job_id, limit=limit, after=after)


@router.get("/{job_id}/report", responses=problems(Unauthenticated, NotFound))
def get_report(job_id: str, caller: Viewer, session: DatabaseSession) -> dict[str, Any]:
    """Return the whole report, per layer."""
    return service.report_document(session, caller.team_id, job_id)


@router.get("/{job_id}/ways-to-run", responses=problems(Unauthenticated, NotFound, InvalidRequest))
def list_ways_to_run(
    job_id: str,
    caller: Viewer,
    session: DatabaseSession,
    folder: Annotated[str, Query(min_length=1, max_length=500, description="Where the artifact was put.")] = FOLDER,
) -> Page[WayToRun]:
    """List commands that run a job's artifact, one for each supported runtime; empty while there is no model."""
    return service.list_ways_to_run(session, caller.team_id, job_id, folder)


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
    request: Request,
    job_id: str,
    caller: Viewer,
    state: State,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    after: Annotated[int, Query(ge=0, le=LARGEST_SEQUENCE, description="Number of the last event known.")] = 0,
    accept: Annotated[str, Header(include_in_schema=False)] = "application/json",
    last_event_id: Annotated[str | None, Header(description="Stream: number of the last event received.")] = None,
) -> Response | EventPage:
    """List the events after a number, oldest first.

    As a stream it continues until the job is over or the key is not valid any more, and can be resumed.
    """
    if "text/event-stream" not in accept:
        return await run_in_threadpool(_read, state, caller, job_id, after, limit)
    last = last_event(last_event_id, after)
    state.streams.require_room(caller)  # the cheapest of refusals
    # A job of another team must answer 404 before the stream begins.
    await run_in_threadpool(_read, state, caller, job_id, last, 1)
    return event_stream(state, FollowedJob(caller, authentication_of(request, state), job_id, last), _sent)


def _read(state: ApiState, caller: Principal, job_id: str, after: int, limit: int) -> EventPage:
    with transaction(state.sessions) as session:
        return read_events(session, caller.team_id, job_id, after=after, limit=limit)


def _sent(session: Session, page: EventPage, is_over: bool) -> Sequence[ServerSentEvent]:
    """Return a message for each event."""
    return [
        ServerSentEvent(id=str(event.sequence), event=event.type, data=event.model_dump_json()) for event in page.data
    ]
