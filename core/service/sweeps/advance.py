"""Steps of a sweep, run by the dispatcher: results of ended jobs are recorded, and the next job is queued.

Each step is one transaction that locks the sweep's row. It queues at most one job, together with the job's point. So a
dispatcher killed in the middle leaves no half step, and two dispatchers take turns or skip each other's sweeps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.database import transaction
from core.pipeline.reports.report import Report
from core.service.duties.isolation import IsolatedRows, RowTask, is_tried
from core.service.duties.team_threads import TeamThreads
from core.service.jobs import service as jobs
from core.service.jobs.hints import SendHint, hint_or_note
from core.service.jobs.resolution.context import RequestContext, ServiceContext
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.jobs.schemas import Job, JobBody
from core.service.jobs.tables import JobReportRow, JobRow, kept_attempt
from core.service.publications.retry import retry
from core.service.sweeps.grid import Document, point_body
from core.service.sweeps.planning import (
    Next,
    PointState,
    Start,
    StartVerification,
    SweepEnd,
    Wait,
    next_of_grid,
    next_of_search,
)
from core.service.sweeps.records import baseline_of, change_status, read_points, request_of
from core.service.sweeps.results import failure_of
from core.service.sweeps.schemas import SweepBody
from core.service.sweeps.tables import SweepPointRow, SweepRow
from core.service.sweeps.undiscovered import awaits_discovery, check_points_again, requested_again
from core.service.sweeps.validation import evaluation_key, find_on_hub, first_error, names_on_hub
from core.service.teams.principal import Automation
from secateur_wire.errors import InvalidRequest, SecateurError, TooManyRequests, Unavailable

DUTY: Final = "sweeps"
_Coming = tuple[str, Sequence[Document]]
"""Team of a sweep, and the job bodies of its next step."""


def advance_sweeps(context: ServiceContext, *, send_hint: SendHint, threads: TeamThreads | None = None) -> int:
    """Advance every running sweep as far as possible now; return the number of jobs queued here.

    Sweeps that name something on the hub come last. With `threads` they are advanced there, and this call does not wait
    for them.
    """
    rows = IsolatedRows(context.sessions, DUTY)
    under_way = [] if threads is None else threads.under_way(DUTY)
    with transaction(context.sessions) as session:
        running = session.execute(
            select(SweepRow.id, SweepRow.team_id)
            .where(SweepRow.status == "running", SweepRow.id.not_in(under_way), is_tried(DUTY, SweepRow.id))
            .order_by(SweepRow.id)
        ).all()

    def tasks() -> Iterator[RowTask[int]]:
        for sweep_id, team_id in running:
            turn = _Turn(context, send_hint, sweep_id)
            yield RowTask(sweep_id, turn.advance, _park, team_id, turn.look)

    return sum(rows.run_all(tasks(), threads))


def _park(sweep_id: str, session: Session, reason: SecateurError) -> bool:
    row = session.get(SweepRow, sweep_id, with_for_update={"key_share": True})
    if row is not None and row.status == "running":
        change_status(session, row, "failed", error=reason.problem())
    return True


@dataclass(frozen=True)
class _StepResult:
    """Result of a step. `job` was queued, and its hint is due. `goes_on`: another step may follow at once."""

    job: Job | None = None
    goes_on: bool = False


class _Turn:
    """Turn of one sweep. The hub is asked while no row is locked."""

    def __init__(self, context: ServiceContext, send_hint: SendHint, sweep_id: str) -> None:
        self._context = context
        self._send_hint = send_hint
        self._sweep_id = sweep_id
        self._coming: _Coming | None = None
        self._may_wait = False

    def look(self) -> bool:
        """Read what the next step needs; return whether the hub has to be asked for it."""
        self._read()
        self._may_wait = self._asks_hub()
        if self._may_wait:  # Others come first meanwhile: it is read again.
            self._coming = None
        return self._may_wait

    def _read(self) -> None:
        with transaction(self._context.sessions) as session:
            self._coming = _coming_bodies(session, self._sweep_id)

    def advance(self) -> int:
        """Advance the sweep as far as possible, or to a new reason to wait; return the number of queued jobs."""
        queued = 0
        if self._may_wait:
            self._read()
        while True:
            findings = None
            if self._coming is not None:
                team_id, bodies = self._coming
                findings = find_on_hub(self._context.hub, team_id, bodies)
            with transaction(self._context.sessions) as session:
                stepped = _step(self._context, session, self._sweep_id, findings or HubFindings())
            if stepped.job is not None:
                queued += 1
                hint_or_note(self._send_hint, self._context.sessions, stepped.job.id, stepped.job.queue)
            if not stepped.goes_on:
                return queued
            self._read()
            if not self._may_wait and self._asks_hub():
                return queued

    def _asks_hub(self) -> bool:
        return self._coming is not None and any(names_on_hub(self._context.hub, body) for body in self._coming[1])


def _step(resources: ServiceContext, session: Session, sweep_id: str, findings: HubFindings) -> _StepResult:
    """Take one step of a running sweep, unless another process is taking one."""
    row = session.scalar(
        select(SweepRow)
        .where(SweepRow.id == sweep_id, SweepRow.status == "running")
        .with_for_update(skip_locked=True, key_share=True)
    )
    if row is None:
        return _StepResult()
    actor = Automation(row.team_id, f"sweep:{row.id}")
    context = resources.request(session, actor, findings)
    if awaits_discovery(session, sweep_id):
        goes_on = check_points_again(context, row)
        return _StepResult(goes_on=goes_on)
    body, points = request_of(row), read_points(session, sweep_id)
    _keep_dense_figures(session, row, points)
    match _next(row, body, points):
        case SweepEnd(is_success):
            failure = None if is_success else failure_of(body, points)
            change_status(session, row, "succeeded" if is_success else "failed", error=failure)
        case Start(number):
            return _queue(context, row, body, _point_row(session, sweep_id, number))
        case StartVerification(number):
            verification = _verification(row, body, _point_row(session, sweep_id, number), len(points))
            return _queue(context, row, body, verification)
        case Wait():
            pass
    return _StepResult()


def _next(row: SweepRow, body: SweepBody, points: Sequence[PointState]) -> Next:
    measured = {point.measures for point in points if point.measures is not None and point.figures is not None}
    if body.search is None:
        return next_of_grid(points, measured, row.max_concurrent)
    return next_of_search(body.search, points, measured, row.max_concurrent)


def _coming_bodies(session: Session, sweep_id: str) -> _Coming | None:
    """Return the team, and the bodies that the next step will queue or check, read without a lock."""
    row = session.get(SweepRow, sweep_id)
    if row is None or row.status != "running":
        return None
    if awaits_discovery(session, sweep_id):
        return row.team_id, [each.body for each in requested_again(session, row, request_of(row))]
    body, points = request_of(row), read_points(session, sweep_id)
    match _next(row, body, points):
        case Start(number):
            coming = _point_row(session, sweep_id, number)
        case StartVerification(number):
            coming = _verification(row, body, _point_row(session, sweep_id, number), len(points))
        case _:
            return None
    return row.team_id, [point_body(body, row.pinned, row.id, coming)]


def _queue(context: RequestContext, row: SweepRow, body: SweepBody, point: SweepPointRow) -> _StepResult:
    """Queue the point's job, or retry it.

    An exceeded quota or an unavailable hub keeps the point waiting; any other refusal of the job ends the point.
    """
    session = context.session
    try:
        with session.begin_nested():
            if point.job_id is not None:
                job = retry(session, context.caller, point.job_id, max_attempts=context.settings.max_attempts)
            else:
                parsed = _parsed(point_body(body, row.pinned, row.id, point))
                job = jobs.submit(context, parsed, baseline=baseline_of(row))
                _require_same_model(row, job)
            session.add(point)
            point.job_id, point.again, point.error = job.id, False, None
    except (TooManyRequests, Unavailable) as error:
        row.waiting_for = error.message
        return _StepResult()
    except SecateurError as error:
        session.add(point)
        point.again, point.error = False, {**error.problem()}
        return _StepResult(goes_on=True)
    row.waiting_for = None
    return _StepResult(job=job, goes_on=True)


def _parsed(document: Document) -> JobBody:
    """Parse a job body; raises InvalidRequest for a body that only an earlier release accepted."""
    try:
        return JobBody.model_validate(document)
    except ValidationError as error:
        raise InvalidRequest(f"the job is no longer one that can be run: {first_error(error)}") from None


def _require_same_model(row: SweepRow, job: Job) -> None:
    """Require that the model's name still refers to the sweep's model; raises InvalidRequest."""
    if job.model_revision != row.model_revision:
        raise InvalidRequest(
            f"model {job.model!r} has changed since this sweep began: its content is {job.model_revision}, and was "
            f"{row.model_revision}",
            param="model",
        )


def _verification(row: SweepRow, body: SweepBody, probed: SweepPointRow, number: int) -> SweepPointRow:
    """Return a new point: the probe's model with the evaluation that the job requests."""
    point = SweepPointRow(
        sweep_id=row.id,
        number=number,
        stage="full",
        point_values=probed.point_values,
        pattern=probed.pattern,
        measures=f"full of {probed.measures}",
        verifies=probed.number,
        again=False,
    )
    if not probed.measures:
        full = JobBody.model_validate(point_body(body, row.pinned, row.id, point))
        point.measures = evaluation_key(full.evaluation)
    return point


def _point_row(session: Session, sweep_id: str, number: int) -> SweepPointRow:
    return session.get_one(SweepPointRow, (sweep_id, number))


def _keep_dense_figures(session: Session, row: SweepRow, points: Sequence[PointState]) -> None:
    """Store the dense model's figures from ended jobs; the first measurement of each is kept."""
    known = baseline_of(row)
    known_jobs = {figure.job for figure in known.figures}
    covered = {point.measures for point in points if point.job_id in known_jobs}
    first: dict[str, str] = {}
    for point in points:
        if point.figures is not None and point.job_id is not None and point.measures not in (None, *covered):
            first.setdefault(str(point.measures), point.job_id)
    if not first:
        return
    reports = session.execute(
        select(JobReportRow.report["dense"])
        .join(JobRow, (JobRow.id == JobReportRow.job_id) & (JobReportRow.attempt == kept_attempt()))
        .where(JobReportRow.job_id.in_(first.values()))
        .order_by(JobRow.finished_at, JobRow.id)
    )
    grown = known
    for (dense,) in reports:
        grown = grown.with_figures(Report.model_validate({"dense": dense}).dense_figures)
    if len(grown.figures) > len(known.figures):
        row.baseline = grown.model_dump(mode="json")
