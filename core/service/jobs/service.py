"""Service of jobs, within one team: submit, read, compare, cancel, retry."""

from collections.abc import Sequence
from typing import Unpack

import structlog
from sqlalchemy import ColumnElement, and_, inspect, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.base import ExecutableOption

from core import telemetry
from core.database import new_id
from core.pagination import Listing, Window, read_page, read_window, within_page
from core.pipeline.reports.dense_figures import KnownDenseFigures
from core.pipeline.reports.how_to_run import FOLDER, ways_to_run
from core.pipeline.reports.report import Report
from core.pipeline.reports.verdict import verdict_on
from core.service.jobs.estimates.history import estimate_that_fits
from core.service.jobs.listing import ORDERS, JobFilters, matching, words_condition
from core.service.jobs.queue import request_cancel, submitted
from core.service.jobs.queue_names import require_queue
from core.service.jobs.quotas import require_room_in_queue
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.job import resolve_job
from core.service.jobs.schemas import Job, JobBody
from core.service.jobs.tables import (
    ArtifactFileRow,
    AttemptRow,
    JobEventRow,
    JobReportRow,
    JobRow,
    WorkerRow,
    kept_attempt,
)
from core.service.jobs.time_left import seconds_left
from core.service.jobs.undiscovered import fill_awaiting, fill_resolved
from core.service.jobs.waiting import waiting_reason
from core.service.teams import audit
from core.service.teams.principal import Actor, team_of
from secateur_wire.base import JsonObject, Page
from secateur_wire.errors import InvalidRequest, NotDiscovered, NotFound
from secateur_wire.jobs import (
    ArtifactFile,
    ArtifactList,
    AttemptPage,
    EventPage,
    JobAttempt,
    JobEvent,
    JobSort,
    WayToRun,
)
from secateur_wire.metrics import Metrics


def submit(context: RequestContext, body: JobBody, *, baseline: KnownDenseFigures | None = None) -> Job:
    """Check a request and queue it as a job, with its first event. The caller sends its hint after the commit.

    `baseline`: figures of the dense model that the job does not measure again. A job on an undiscovered model waits for
    the discovery, and is resolved afterwards (`core.service.jobs.undiscovered`).

    Raises the InvalidRequest kind that names the fault, DoesNotFit where no worker could hold the job, and
    QuotaExceeded where the team may not queue more.
    """
    session, team_id, settings = context.session, context.team_id, context.settings
    require_queue(session, body.queue, settings)
    row = JobRow(
        id=new_id("job"),
        team_id=team_id,
        attempts_allowed=settings.max_attempts,
        method=body.method,
        queue=body.queue,
        priority=body.priority,
        request_id=structlog.contextvars.get_contextvars().get("request_id"),
        traceparent=telemetry.current_traceparent(),
    )
    workers: Sequence[WorkerRow] = ()
    try:
        resolved = resolve_job(context, body)
    except NotDiscovered as missing:
        fill_awaiting(context, row, body, missing)
    else:
        fitting = estimate_that_fits(session, team_id, resolved, settings)
        workers = fitting.workers
        fill_resolved(row, resolved, fitting)
    if baseline is not None:
        row.sources = row.sources | {"baseline": baseline.model_dump(mode="json")}
    require_room_in_queue(session, team_id, adding=1)
    details = {"model": row.model, "method": row.method, "queue": row.queue}
    submitted(session, row, audit.entry(context.caller, "job.submit", row.id, details))
    return job_answer(row, waiting_reason(row, workers, settings))


def get_job(session: Session, team_id: str, job_id: str) -> Job:
    """Return a job; raises NotFound, also for another team's job."""
    row = find_job(session, team_id, job_id)
    return job_answer(row, left=seconds_left(session, row))


def list_jobs(
    session: Session,
    team_id: str,
    *,
    limit: int,
    after: str | None,
    sort: JobSort = "newest",
    **filters: Unpack[JobFilters],
) -> Page[Job]:
    """Return a page of the team's jobs that match every filter given."""
    return read_page(session, _listing(team_id, sort, filters), limit=limit, after=after)


def jobs_window(
    session: Session,
    team_id: str,
    *,
    limit: int,
    after: str | None,
    before: str | None,
    sort: JobSort = "newest",
    **filters: Unpack[JobFilters],
) -> Window[Job]:
    """Return a page of the same list that can be turned forwards and backwards."""
    return read_window(session, _listing(team_id, sort, filters), limit=limit, after=after, before=before)


def _listing(team_id: str, sort: JobSort, filters: JobFilters) -> Listing[JobRow, Job]:
    return Listing(matching(team_id, filters), JobRow, job_answer, ORDERS[sort], words_condition(team_id, filters))


def cancel(session: Session, caller: Actor, job_id: str) -> Job:
    """Cancel a queued job at once, or ask a running job to stop. Idempotent. Raises NotFound, Conflict."""
    row = find_job(session, team_of(caller), job_id)
    cancellation = request_cancel(session, row.id)
    if cancellation.changed:
        audit.note(session, caller, "job.cancel", row.id, {"status": cancellation.status})
    session.refresh(row)
    return job_answer(row)


def list_attempts(session: Session, team_id: str, job_id: str, *, limit: int, after: int | None) -> AttemptPage:
    """Return the attempts at a job before number `after`, newest first. Raises NotFound."""
    job = find_job(session, team_id, job_id)
    query = select(AttemptRow).where(AttemptRow.job_id == job.id)
    if after is not None:
        query = query.where(AttemptRow.attempt < after)
    rows = session.scalars(query.order_by(AttemptRow.attempt.desc()).limit(limit + 1)).all()
    attempts = [JobAttempt.model_validate(row, from_attributes=True) for row in rows[:limit]]
    has_more = len(rows) > limit
    return AttemptPage(data=attempts, has_more=has_more, next_after=attempts[-1].attempt if has_more else None)


def read_events(session: Session, team_id: str, job_id: str, *, after: int, limit: int) -> EventPage:
    """Return events with a number above `after`, oldest first. Raises NotFound."""
    find_job(session, team_id, job_id)
    rows = session.scalars(
        select(JobEventRow)
        .where(JobEventRow.job_id == job_id, JobEventRow.sequence > after)
        .order_by(JobEventRow.sequence)
        .limit(limit + 1)
    ).all()
    events = within_page(JobEvent.model_validate(row, from_attributes=True) for row in rows[:limit])
    return EventPage(data=events, has_more=len(rows) > len(events), next_after=events[-1].sequence if events else after)


def report_document(session: Session, team_id: str, job_id: str) -> JsonObject:
    """Return the report for the job's metrics and artifact, as it was stored.

    Raises NotFound where there is no report yet.
    """
    job = find_job(session, team_id, job_id)
    report: JsonObject | None = session.scalar(
        select(JobReportRow.report).join(JobRow, is_of_kept_attempt(JobReportRow)).where(JobRow.id == job.id)
    )
    if report is None:
        raise NotFound(f"job {job_id!r} has no report: it is {job.status}")
    return report


def get_report(session: Session, team_id: str, job_id: str) -> Report:
    """Return the report of `report_document` as a typed object."""
    return Report.model_validate(report_document(session, team_id, job_id))


def get_jobs(
    session: Session, team_id: str, job_ids: Sequence[str], options: Sequence[ExecutableOption] = ()
) -> list[Job]:
    """Return the jobs in the given order, read with these options. Raises NotFound for the first that is missing."""
    rows = session.scalars(select(JobRow).where(JobRow.id.in_(job_ids), JobRow.team_id == team_id).options(*options))
    answers = {row.id: job_answer(row) for row in rows}
    for job_id in job_ids:
        if job_id not in answers:
            raise NotFound(f"there is no job {job_id!r}")
    return [answers[job_id] for job_id in job_ids]


def list_artifacts(session: Session, team_id: str, job_id: str) -> ArtifactList:
    """Return the files of the newest stored artifact of a job; an empty list before one is stored.

    Raises NotFound.
    """
    job = find_job(session, team_id, job_id)
    rows = session.scalars(
        select(ArtifactFileRow)
        .join(JobRow, is_of_kept_attempt(ArtifactFileRow))
        .where(JobRow.id == job.id)
        .order_by(ArtifactFileRow.path)
    )
    files = [ArtifactFile(path=row.path, bytes=row.bytes, sha256=row.sha256) for row in rows]
    return ArtifactList(data=files, has_more=False, next_after=None)


def list_ways_to_run(session: Session, team_id: str, job_id: str, folder: str = FOLDER) -> Page[WayToRun]:
    """Return the ways to run a job's artifact in `folder`; an empty list without an artifact, or if it is not a model.

    Raises NotFound, and InvalidRequest for a folder name that commands cannot contain.
    """
    if not folder.isprintable() or set(folder) & set('"\\{}'):
        raise InvalidRequest(
            f"folder: {folder!r} has quotes, braces, backslashes or control characters", param="folder"
        )
    job = get_job(session, team_id, job_id)
    files = [file.path for file in list_artifacts(session, team_id, job_id).data]
    ways = ways_to_run(get_report(session, team_id, job_id), job.measured, files, folder) if files else []
    return Page(data=ways, has_more=False, next_after=None)


def find_artifact(session: Session, team_id: str, job_id: str, path: str) -> tuple[int, ArtifactFile]:
    """Return the attempt and the facts of one file. Raises NotFound."""
    job = find_job(session, team_id, job_id)
    row = session.scalar(
        select(ArtifactFileRow)
        .join(JobRow, is_of_kept_attempt(ArtifactFileRow))
        .where(JobRow.id == job.id, ArtifactFileRow.path == path)
    )
    if row is None:
        raise NotFound(f"there is no file {path!r} in this artifact")
    return row.attempt, ArtifactFile(path=row.path, bytes=row.bytes, sha256=row.sha256)


def is_of_kept_attempt(table: type[JobReportRow] | type[ArtifactFileRow]) -> ColumnElement[bool]:
    """Return the condition that joins a job with the attempt of its report and artifact."""
    return and_(JobRow.id == table.job_id, table.attempt == kept_attempt())


def find_job(session: Session, team_id: str, job_id: str, *, for_update: bool = False) -> JobRow:
    """Return a job's row; raises NotFound, also for another team's job."""
    query = select(JobRow).where(JobRow.id == job_id, JobRow.team_id == team_id)
    row = session.scalar(query.with_for_update() if for_update else query)
    if row is None:
        raise NotFound(f"there is no job {job_id!r}")
    return row


def job_answer(row: JobRow, waiting: str | None = None, left: tuple[float, float] | None = None) -> Job:
    """Return the job as the API shows it; a row that was read with `SHORT_ROW` without its long fields.

    `waiting` is the reason why it waits (`core.service.jobs.waiting`), or None. `left` are the seconds left
    (`core.service.jobs.time_left`).
    """
    body = (row.short_body if "body" in inspect(row).unloaded else None) or row.body
    own = (
        "id",
        "status",
        "stage",
        "progress",
        "attempt",
        "created_at",
        "started_at",
        "finished_at",
        "error",
        "metrics",
    )
    computed = {
        "waiting_reason": waiting,
        "seconds_left": None if left is None else [*left],
        "verdict": None
        if row.metrics is None
        else verdict_on(row.method, body.get("pattern"), body.get("sparsity"), Metrics.model_validate(row.metrics)),
        "model_revision": row.model_revision,
        "estimated_seconds": None if row.estimate is None else row.estimate["seconds"],
        "estimated_seconds_deviation": None if row.estimate is None else row.estimate["basis"]["seconds_deviation"],
        "warnings": [] if row.estimate is None else row.estimate["warnings"],
    }
    return Job.model_validate(body | {name: getattr(row, name) for name in own} | computed, extra="ignore")
