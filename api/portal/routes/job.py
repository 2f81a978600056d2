"""Page of one job: live while it runs, with its report when it is over, and with its actions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from sqlalchemy.orm import Session
from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from api.dependencies import DatabaseSession, State
from api.events.stream import LARGEST_SEQUENCE, FollowedJob, Turn, event_stream, last_event
from api.http.archives import artifact_archive
from api.http.downloads import Conditions, artifact_file
from api.portal.rendering import address_of, fragment, page
from api.portal.session import COOKIE, Viewer
from api.portal.views import job_page
from api.portal.views.files import IfNoneMatch, chart
from api.portal.views.layer_table import by_kind, layer_figures
from api.portal.views.metric_curves import curves_of
from api.state import ApiState
from core.database import transaction
from core.engine.cuts import unit_rows
from core.engine.options.sensitivity import Sensitivity
from core.methods.registry import METHODS
from core.service.jobs import service
from core.service.jobs.alternatives import job_with_measured
from core.service.jobs.random_baseline import with_random_baseline
from core.service.jobs.snapshots import metric_names, take_snapshot
from core.service.jobs.waiting import with_waiting_reason
from core.service.teams.principal import Principal
from core.service.teams.sessions import signed_in
from core.storage import attachment
from secateur_wire.errors import NotFound
from secateur_wire.jobs import EventPage

router = APIRouter(prefix="/jobs")

_GATHER_SECONDS = 0.5
"""Events within this time are sent in one message: people read no faster, and there may be many pages."""
_OVER = "over"
"""Name of the event that ends a stream: the job is over, and the page is complete."""
_LOG_PAGE = 1000
_LAST_EVENTS = 20
"""Event types in which the page finds the worker's current activity."""


@router.get("/{job_id}")
def show_job(request: Request, job_id: str, caller: Viewer, session: DatabaseSession, state: State) -> Response:
    """Show everything up to the job's newest event; the page's stream continues from there."""
    now = take_snapshot(session, caller.team_id, job_id)
    job = with_random_baseline(session, caller.team_id, job_with_measured(session, caller.team_id, now.job))
    now = replace(now, job=with_waiting_reason(session, job, state.settings))
    before = max(now.last_event - _LAST_EVENTS, 0)
    newest = service.read_events(session, caller.team_id, job_id, after=before, limit=now.last_event - before).data
    context = {
        **job_page.head(now, newest),
        **job_page.stages(session, caller.team_id, now),
        **job_page.log(session, caller.team_id, now),
        **job_page.result(session, caller.team_id, now),
        "method": METHODS.get(now.job.method),
        "curves": job_page.curves(session, caller.team_id, now),
        "recipe": job_page.recipe_of(now.job),
        "url": address_of(request),
        "stream": f"/portal/jobs/{job_id}/stream?after={now.last_event}",
        "over": _OVER,
    }
    return page(request, "job/page.html", context)


@router.get("/{job_id}/stream")
async def stream_job(
    request: Request,
    job_id: str,
    caller: Viewer,
    state: State,
    after: Annotated[int, Query(ge=0, le=LARGEST_SEQUENCE)] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Stream the changed parts of the page until the job is over."""
    last = last_event(last_event_id, after)
    await run_in_threadpool(_require_job, state, caller.team_id, job_id)
    token = request.cookies[COOKIE]

    def authenticate(session: Session) -> Principal:
        return signed_in(session, token, state.secret).principal

    known = {"who": request.state.signed_in, "csrf": request.state.csrf, "url": address_of(request)}
    followed = FollowedJob(caller, authenticate, job_id, last)
    turn = _page_turn(caller.team_id, job_id, known)
    return event_stream(state, followed, turn, gather_seconds=_GATHER_SECONDS)


def _require_job(state: ApiState, team_id: str, job_id: str) -> None:
    with transaction(state.sessions) as session:
        service.get_job(session, team_id, job_id)


@router.get("/{job_id}/log")
def full_log(job_id: str, caller: Viewer, state: State) -> Response:
    """Download every line of the log as a text file."""
    _require_job(state, caller.team_id, job_id)
    headers = {"Content-Disposition": attachment(f"{job_id}.log")}
    return StreamingResponse(_log_lines(state, caller.team_id, job_id), headers=headers, media_type="text/plain")


def _log_lines(state: ApiState, team_id: str, job_id: str) -> Iterator[str]:
    after, has_more = 0, True
    while has_more:
        with transaction(state.sessions) as session:
            events = service.read_events(session, team_id, job_id, after=after, limit=_LOG_PAGE)
        after, has_more = events.next_after, events.has_more
        for event in events.data:
            when = event.created_at.isoformat(timespec="milliseconds")
            if event.type == "log":
                yield f"{when} attempt {event.attempt} {event.data['level']}: {event.data['message']}\n"
            elif event.type == "stage":
                yield f"{when} attempt {event.attempt} stage: {event.data['stage']}\n"


@router.get("/{job_id}/recipe.json")
def download_recipe(job_id: str, caller: Viewer, session: DatabaseSession) -> Response:
    """Download the body that creates the same job again."""
    recipe = job_page.recipe_of(service.get_job(session, caller.team_id, job_id))
    headers = {"Content-Disposition": attachment(f"{job_id}.json")}
    return Response(json.dumps(recipe, indent=2), headers=headers, media_type="application/json")


@router.head("/{job_id}/files/{path:path}")
@router.get("/{job_id}/files/{path:path}")
def download_file(
    request: Request, job_id: str, path: str, caller: Viewer, state: State, conditions: Conditions
) -> Response:
    """Download a file of the artifact, as REST sends it."""
    return artifact_file(request, state, caller.team_id, job_id, path, conditions)


@router.head("/{job_id}/artifacts.tar")
@router.get("/{job_id}/artifacts.tar")
def download_artifact(request: Request, job_id: str, caller: Viewer, state: State) -> Response:
    """Download all files of the artifact as one archive, as REST sends it."""
    return artifact_archive(request, state, caller.team_id, job_id)


@router.get("/{job_id}/layers.svg")
def layers_chart(
    job_id: str,
    caller: Viewer,
    state: State,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Draw each layer's remaining heads and channels, or else its sparsity and reconstruction error."""
    with transaction(state.sessions) as session:
        job = service.get_job(session, caller.team_id, job_id)
        report = service.get_report(session, caller.team_id, job_id)
    kinds = by_kind(layer_figures(report))
    if not kinds:
        raise NotFound(f"the report of job {job_id!r} has no layers")
    units, title = unit_rows(report.layers), f"Layers of {job.model} after {job.method}"

    def draw() -> str:  # Both are slow to load, and only charts need them.
        if units:
            from core.pipeline.reports.charts import shape_chart

            return shape_chart(report, title=title)
        from core.pipeline.reports.charts import Series, layers_chart

        errors = {
            kind: [(each.layer, each.error) for each in rows if each.error is not None] for kind, rows in kinds.items()
        }
        return layers_chart(
            [Series(kind, [row.layer for row in rows], [row.sparsity for row in rows]) for kind, rows in kinds.items()],
            [Series(kind, *zip(*measured, strict=True)) for kind, measured in errors.items() if measured],
            title=title,
        )

    return chart(repr((kinds, units)), if_none_match, draw)


@router.get("/{job_id}/vocabulary.svg")
def coverage_chart(
    job_id: str,
    caller: Viewer,
    state: State,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Draw the share of the texts' tokens over the number of kept tokens."""
    with transaction(state.sessions) as session:
        job = service.get_job(session, caller.team_id, job_id)
        vocabulary = service.get_report(session, caller.team_id, job_id).vocabulary
    if vocabulary is None:
        raise NotFound(f"job {job_id!r} removed no tokens")

    def draw() -> str:
        from core.pipeline.reports.charts import vocabulary_chart

        return vocabulary_chart(vocabulary, title=f"Vocabulary of {job.model}")

    return chart(vocabulary.model_dump_json(), if_none_match, draw)


@router.get("/{job_id}/sensitivity.svg")
def sensitivity_chart(
    job_id: str,
    caller: Viewer,
    state: State,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Draw loss against pruning rate of each layer."""
    with transaction(state.sessions) as session:
        sensitivity = service.get_report(session, caller.team_id, job_id).sensitivity
    if sensitivity is None:
        raise NotFound(f"job {job_id!r} measured no sensitivity")

    def draw() -> str:
        from core.pipeline.reports.charts import sensitivity_chart

        return sensitivity_chart(Sensitivity.model_validate(sensitivity))

    return chart(json.dumps(sensitivity), if_none_match, draw)


def _page_turn(team_id: str, job_id: str, known: Mapping[str, Any]) -> Turn:
    """Return a turn of the stream that renders the parts of the page changed by new events.

    Each batch of events is one message, which the page applies as a whole. `known` has further variables of the
    templates.
    """
    drawn: set[str] | None = None

    def turn(session: Session, page: EventPage, is_over: bool) -> Sequence[ServerSentEvent]:
        nonlocal drawn
        if not page.data and not is_over:
            return []
        types = {event.type for event in page.data}
        is_changed = is_over or bool(types & {"status", "stage"})
        now = take_snapshot(session, team_id, job_id)
        context: dict[str, Any] = {"job": now.job, "is_changed": is_changed, "is_over": is_over}
        if is_changed or "progress" in types:
            context |= job_page.head(now, page.data)
        if is_changed:
            context |= job_page.stages(session, team_id, now)
        if is_over:
            now = replace(now, job=with_random_baseline(session, team_id, job_with_measured(session, team_id, now.job)))
            context |= job_page.result(session, team_id, now)
        curves = curves_of(page.data)
        if curves and drawn is None:
            drawn = metric_names(session, job_id, up_to=page.data[0].sequence - 1)
        html = fragment(
            "job/live_updates.html",
            **known,
            **context,
            types=types,
            lines=[event for event in page.data if event.type in job_page.LOG_EVENTS],
            curves=curves,
            drawn=drawn or set(),
        )
        if drawn is not None:
            drawn |= {curve.name for curve in curves}
        messages = [ServerSentEvent(html, id=str(page.next_after))]
        return [*messages, ServerSentEvent("", event=_OVER)] if is_over else messages

    return turn
