"""Jobs on models that are not discovered yet: accepted at once, and resolved after the discovery.

Such a job waits in its queue, and no worker takes it: its request cannot be checked without the facts of the model, and
a worker would not know which files to fetch. After the discovery the dispatcher resolves the request like that of any
other job. The job is then ready for workers, or it fails with the error that a submit would have raised.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

from pydantic import ValidationError
from sqlalchemy import func, or_, select, text, update
from sqlalchemy.orm import Session

from core.database import seconds_from_now, transaction
from core.pipeline.recipes.validation import check_without_model
from core.service.discoveries.requests import ID_PREFIX, ask_for
from core.service.discoveries.states import OPEN
from core.service.discoveries.tables import DiscoveryRow
from core.service.duties.isolation import IsolatedRows, RowTask, is_tried
from core.service.duties.team_threads import TeamThreads
from core.service.jobs.admission import needs_by, needs_columns
from core.service.jobs.estimates.history import FittingEstimate, estimate_that_fits
from core.service.jobs.hints import SendHint, hint_or_note
from core.service.jobs.queue.completion import refuse
from core.service.jobs.queue.transitions import JobChange, write
from core.service.jobs.resolution.context import RequestContext, ServiceContext
from core.service.jobs.resolution.hub_lookup import HubFindings, HubLookup
from core.service.jobs.resolution.job import ResolvedJob, request_of, resolve_job
from core.service.jobs.resolution.model import find_model
from core.service.jobs.schemas import JobBody
from core.service.jobs.tables import JOB_AWAITS, JobRow
from core.service.teams.principal import Actor, Automation
from core.settings import Settings
from secateur_wire.base import JsonObject
from secateur_wire.errors import InvalidRequest, NotDiscovered, QuotaExceeded, SecateurError, Unavailable

DUTY: Final = "discovered models"
_LOOK_SECONDS = 5.0
"""Pause between two looks at a job, measured from `dispatched_at`, which records the hints of other jobs."""
_STALE_SECONDS = 600.0
"""A discovery that no worker took for this time may need a library version that no worker has any more."""
_BATCH = 50


def fill_awaiting(context: RequestContext, row: JobRow, body: JobBody, missing: NotDiscovered) -> None:
    """Fill in a new job's row that waits for a discovery, and request the discovery.

    Raises the errors that can be found without the model, and QuotaExceeded where the team has too many discoveries.
    """
    pattern = check_without_model(request_of(body))
    model = find_model(context, body.model)
    row.body = body.model_copy(update={"model": model.pinned, "pattern": pattern}).model_dump(mode="json")
    row.sources = {"model": model.reference.model_dump(mode="json")}
    row.model, row.model_revision = model.reference.name, model.reference.revision
    row.labels = dict(body.metadata)
    row.awaits_discovery = request_discovery(context.session, context.caller, missing, context.settings)


def fill_resolved(row: JobRow, resolved: ResolvedJob, fitting: FittingEstimate) -> None:
    """Fill in the row of a job that workers can take."""
    row.body = resolved.recipe.body()
    row.sources = (row.sources or {}) | dict(resolved.sources)
    row.model, row.model_revision = resolved.model.name, resolved.model.revision
    row.labels = dict(resolved.recipe.metadata)
    estimate = fitting.estimate
    row.estimate, row.is_corrected = estimate.model_dump(mode="json"), estimate.basis.jobs > 0
    for name, value in needs_columns(needs_by(estimate)).items():
        setattr(row, name, value)


def resolve_awaiting(context: ServiceContext, *, send_hint: SendHint, threads: TeamThreads | None = None) -> int:
    """Resolve the jobs whose discovery has ended, and request a forgotten discovery again.

    Jobs that name something on the hub come last. With `threads` they are resolved there, and this call does not wait
    for them. Returns the number of jobs resolved here.
    """
    rows = IsolatedRows(context.sessions, DUTY)
    with transaction(context.sessions) as session:
        due = _due(session, [] if threads is None else threads.under_way(DUTY))

    def resolve(job_id: str, team_id: str, document: JsonObject) -> bool | None:
        findings = _look_up(context.hub, team_id, document)
        with transaction(context.sessions) as session:
            queue = _resolve(context, session, job_id, findings)
        if queue is None:
            return None
        hint_or_note(send_hint, context.sessions, job_id, queue)
        return True

    def waits(document: JsonObject) -> bool:
        body = _parsed(document)
        return body is not None and context.hub.asks(body)

    tasks = [
        RowTask(job_id, partial(resolve, job_id, team_id, document), _park, team_id, partial(waits, document))
        for job_id, team_id, document in due
    ]
    return len(rows.run_all(tasks, threads))


def _park(job_id: str, session: Session, reason: SecateurError) -> bool:
    refuse(session, job_id, reason.problem())
    return True


def _due(session: Session, under_way: Sequence[str]) -> Sequence[tuple[str, str, JsonObject]]:
    """Return jobs that may be resolved now, each team in turn."""
    is_awaited = (
        select(DiscoveryRow.id)
        .where(
            DiscoveryRow.id == JobRow.awaits_discovery,
            DiscoveryRow.state.in_(OPEN),
            or_(DiscoveryRow.state == "running", DiscoveryRow.created_at > seconds_from_now(-_STALE_SECONDS)),
        )
        .exists()
    )
    oldest = JobRow.dispatched_at.nulls_first()
    place = func.row_number().over(partition_by=JobRow.team_id, order_by=(oldest, JobRow.id))
    ranked = (
        select(JobRow.id, place.label("place"))
        .where(
            text(f"jobs.{JOB_AWAITS}"),
            or_(JobRow.dispatched_at.is_(None), JobRow.dispatched_at <= seconds_from_now(-_LOOK_SECONDS)),
            ~is_awaited,
            JobRow.id.not_in(under_way),
            is_tried(DUTY, JobRow.id),
        )
        .subquery()
    )
    rows = session.execute(
        select(JobRow.id, JobRow.team_id, JobRow.body)
        .join(ranked, ranked.c.id == JobRow.id)
        .order_by(ranked.c.place, oldest, JobRow.id)
        .limit(_BATCH)
    )
    return [(row.id, row.team_id, row.body) for row in rows]


def _look_up(hub: HubLookup, team_id: str, document: JsonObject) -> HubFindings:
    """Look up names on the hub outside of any transaction; a body that this release cannot read names nothing."""
    body = _parsed(document)
    return HubFindings() if body is None else hub.of(team_id, body)


def _parsed(document: JsonObject) -> JobBody | None:
    try:
        return JobBody.model_validate(document)
    except ValidationError:
        return None


def _resolve(resources: ServiceContext, session: Session, job_id: str, findings: HubFindings) -> str | None:
    """Resolve one job, fail it, or leave it for later; return its queue where a worker can take it now."""
    row = session.scalars(
        select(JobRow)
        .where(JobRow.id == job_id, text(f"jobs.{JOB_AWAITS}"))
        .with_for_update(skip_locked=True, key_share=True)
    ).one_or_none()
    if row is None:
        return None
    actor, settings = Automation(row.team_id, "dispatcher"), resources.settings
    context = resources.request(session, actor, findings)
    try:
        resolved = resolve_job(context, JobBody.model_validate(row.body))
        fitting = estimate_that_fits(session, row.team_id, resolved, settings)
    except NotDiscovered as missing:
        try:
            _look_later(session, job_id, request_discovery(session, actor, missing, settings))
        except QuotaExceeded:
            _look_later(session, job_id, row.awaits_discovery)
        return None
    except Unavailable:
        _look_later(session, job_id, row.awaits_discovery)
        return None
    except ValidationError:
        refuse(session, job_id, InvalidRequest("the job is one that this release no longer takes").problem())
        return None
    except SecateurError as error:
        refuse(session, job_id, error.problem())
        return None
    fill_resolved(row, resolved, fitting)
    session.flush()
    description = resolved.model.description
    now = func.clock_timestamp()
    write(
        session,
        job_id,
        JobChange(
            statuses=("queued",),
            values={"awaits_discovery": None, "available_at": now, "dispatched_at": now},
            event="log",
            data={
                "level": "info",
                "message": f"The model is known now: {description.architecture}, {description.layers} layers, "
                f"{description.prunable_parameters} weights that can be pruned.",
            },
        ),
    )
    return row.queue


def request_discovery(session: Session, actor: Actor, missing: NotDiscovered, settings: Settings) -> str:
    """Request a missing discovery and return its id; the id of no discovery where no worker can be asked yet."""
    return ID_PREFIX if missing.version is None else ask_for(session, actor, missing, settings).id


def _look_later(session: Session, job_id: str, awaits: str | None) -> None:
    session.execute(
        update(JobRow)
        .where(JobRow.id == job_id)
        .values(awaits_discovery=awaits, dispatched_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )
