"""Service of sweeps, within one team: start, read, cancel, resume."""

import contextlib
from typing import cast

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from core.database import new_id
from core.pagination import Listing, Window, read_page, read_window
from core.service.jobs.queue import request_cancel
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.hub_lookup import HubFindings, HubLookup
from core.service.jobs.service import get_jobs
from core.service.jobs.tables import SHORT_ROW, JobRow
from core.service.sweeps.grid import requested_points
from core.service.sweeps.records import baseline_of, change_status, find_sweep, read_points, request_of
from core.service.sweeps.results import results_of
from core.service.sweeps.schemas import Sweep, SweepBody, SweepResults
from core.service.sweeps.tables import SweepPointRow, SweepRow
from core.service.sweeps.undiscovered import WAITING, check_or_ask
from core.service.sweeps.validation import UNKNOWN_PATTERN, find_on_hub, point_row
from core.service.teams import audit
from core.service.teams.principal import Actor, team_of
from secateur_wire.base import Page
from secateur_wire.errors import Conflict
from secateur_wire.jobs import JobError
from secateur_wire.states import SweepStatus
from secateur_wire.sweeps import Cost, DenseSource, PointCounts, SkippedPoint


def look_up(hub: HubLookup, team_id: str, body: SweepBody) -> HubFindings:
    """Look up the points' names on the hub, before the request's transaction. Raises InvalidRequest."""
    return find_on_hub(hub, team_id, [each.body for each in requested_points(body)])


def create(context: RequestContext, body: SweepBody) -> Sweep:
    """Check every point like a submitted job, and write the sweep; the dispatcher starts its jobs.

    A sweep on an undiscovered model waits for the discovery (`core.service.sweeps.undiscovered`). Raises InvalidRequest
    that names the points that cannot run, and QuotaExceeded where the team has too many discoveries.
    """
    session, team_id = context.session, context.team_id
    checked = check_or_ask(context, body, requested_points(body))
    first = checked.points[0]
    row = SweepRow(
        id=new_id("swp"),
        team_id=team_id,
        name=body.name,
        model=first.model,
        model_revision=first.model_revision,
        pinned=first.pinned,
        max_concurrent=body.max_concurrent,
        request=body.model_dump(mode="json"),
        skipped=[each.model_dump(mode="json") for each in checked.skipped],
    )
    session.add(row)
    change_status(session, row, "running")
    session.add_all(point_row(row.id, number, each) for number, each in enumerate(checked.points))
    row.waiting_for = WAITING if first.pattern == UNKNOWN_PATTERN else None
    session.flush()
    details = {"model": row.model, "points": len(checked.points), "kind": "search" if body.search else "grid"}
    audit.note(session, context.caller, "sweep.submit", row.id, details)
    return _answer(session, row)


def get_sweep(session: Session, team_id: str, sweep_id: str) -> Sweep:
    """Return a sweep; raises NotFound, also for another team's."""
    return _answer(session, find_sweep(session, team_id, sweep_id))


def list_sweeps(
    session: Session, team_id: str, *, limit: int, after: str | None, status: SweepStatus | None = None
) -> Page[Sweep]:
    """Return the team's sweeps, newest first."""
    query = select(SweepRow).where(SweepRow.team_id == team_id)
    if status is not None:
        query = query.where(SweepRow.status == status)
    return read_page(session, Listing(query, SweepRow, lambda row: _answer(session, row)), limit=limit, after=after)


def sweeps_window(
    session: Session, team_id: str, *, limit: int, after: str | None, before: str | None
) -> Window[Sweep]:
    """Return a page of the same list, with the positions of the pages before and after it."""
    query = select(SweepRow).where(SweepRow.team_id == team_id)
    return read_window(
        session,
        Listing(query, SweepRow, lambda row: _answer(session, row)),
        limit=limit,
        after=after,
        before=before,
    )


def get_results(
    session: Session, team_id: str, sweep_id: str, *, quality: str | None = None, cost: Cost | None = None
) -> SweepResults:
    """Return the points with their current figures. Raises NotFound."""
    row = find_sweep(session, team_id, sweep_id)
    points = read_points(session, row.id)
    started = [each.job_id for each in points if each.job_id]
    jobs = {job.id: job for job in get_jobs(session, team_id, started, SHORT_ROW)}
    refused = select(SweepPointRow.number, SweepPointRow.error).where(
        SweepPointRow.sweep_id == row.id, SweepPointRow.error.is_not(None)
    )
    errors = {number: JobError.model_validate(error, extra="ignore") for number, error in session.execute(refused)}
    return results_of(_answer(session, row), request_of(row), points, jobs, errors, quality=quality, cost=cost)


def cancel(session: Session, caller: Actor, sweep_id: str) -> Sweep:
    """Start no more jobs, and cancel the unfinished ones. Idempotent. Raises NotFound, Conflict."""
    row = find_sweep(session, team_of(caller), sweep_id, for_update=True)
    if row.status in ("succeeded", "failed"):
        raise Conflict(f"the sweep has {row.status}: there is nothing to cancel")
    if row.status == "running":
        change_status(session, row, "cancelled")
        for point in read_points(session, row.id):
            if point.is_active and point.job_id is not None:
                _cancel_job(session, point.job_id)
        audit.note(session, caller, "sweep.cancel", row.id)
    return _answer(session, row)


def resume(session: Session, caller: Actor, sweep_id: str) -> Sweep:
    """Resume a cancelled or failed sweep. Idempotent. Raises NotFound, Conflict.

    Points without a job get one. Cancelled and failed jobs are retried, except after a missed gate.
    """
    row = find_sweep(session, team_of(caller), sweep_id, for_update=True)
    if row.status == "succeeded":
        raise Conflict("the sweep has succeeded: submit another one to run more")
    if row.status != "running":
        change_status(session, row, "running")
        numbers = [
            point.number
            for point in read_points(session, row.id)
            if point.status in ("cancelled", "cancelling", "failed") and point.figures is None
        ]
        mine = (SweepPointRow.sweep_id == row.id) & SweepPointRow.number.in_(numbers)
        session.execute(update(SweepPointRow).where(mine).values(again=SweepPointRow.job_id.is_not(None), error=None))
        audit.note(session, caller, "sweep.resume", row.id)
    return _answer(session, row)


def _cancel_job(session: Session, job_id: str) -> None:
    with contextlib.suppress(Conflict):  # The job has just ended.
        request_cancel(session, job_id)


def _answer(session: Session, row: SweepRow) -> Sweep:
    request = request_of(row)
    return Sweep(
        id=row.id,
        name=row.name,
        kind="grid" if request.search is None else "search",
        status=cast(SweepStatus, row.status),
        error=None if row.error is None else JobError.model_validate(row.error, extra="ignore"),
        waiting_for=row.waiting_for,
        created_at=row.created_at,
        finished_at=row.finished_at,
        model=row.model,
        job=request.job,
        grid=request.grid,
        search=request.search,
        max_concurrent=row.max_concurrent,
        points=_counts(session, row),
        skipped=[SkippedPoint.model_validate(each, extra="ignore") for each in row.skipped],
        dense=[DenseSource(kind=each.kind, name=each.name, job=each.job) for each in baseline_of(row).figures],
    )


def _counts(session: Session, row: SweepRow) -> PointCounts:
    status = func.coalesce(JobRow.status, case((SweepPointRow.error.is_not(None), "failed"), else_="waiting"))
    counted = session.execute(
        select(status, func.count())
        .select_from(SweepPointRow)
        .outerjoin(JobRow, JobRow.id == SweepPointRow.job_id)
        .where(SweepPointRow.sweep_id == row.id)
        .group_by(status)
    )
    counts: dict[str, int] = {row[0]: row[1] for row in counted}
    waiting = counts.get("waiting", 0)
    is_over = row.status != "running"
    return PointCounts(
        total=sum(counts.values()),
        waiting=0 if is_over else waiting,
        queued=counts.get("queued", 0),
        running=counts.get("running", 0) + counts.get("cancelling", 0),
        succeeded=counts.get("succeeded", 0),
        failed=counts.get("failed", 0),
        cancelled=counts.get("cancelled", 0),
        not_run=waiting if is_over else 0,
    )
