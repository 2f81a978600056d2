"""Figures of the fleet, read from the queue for metrics and for the page of workers.

Queued and running jobs are counted when the figures are read. Ended attempts are added to totals:
`count_ended_attempts` adds each of them exactly once. So counters never decrease, reading them costs the same for any
number of jobs, and they remain after the rows are removed.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, case, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import seconds_from_statement
from core.service.duties.isolation import is_tried
from core.service.jobs.estimates.corrections import keep_ratios
from core.service.jobs.metrics_tables import AttemptTotalRow, StageTotalRow
from core.service.jobs.tables import JOB_IS_LEASED, AttemptRow, JobRow, WorkerRow
from core.service.teams.quotas import device_seconds_used
from core.service.teams.tables import TeamRow
from secateur_wire.errors import SecateurError

STAGE_BOUNDS = (0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0, inf)
"""Upper bounds of a stage's histogram buckets, in seconds."""

DUTY: Final = "totals"
_BATCH = 1000
_ATTEMPT_ID: ColumnElement[str] = func.concat(AttemptRow.job_id, "/", AttemptRow.attempt)
_UNCOUNTED = (
    select(AttemptRow.job_id, AttemptRow.attempt)
    .where(AttemptRow.ended_at.is_not(None), ~AttemptRow.counted, is_tried(DUTY, _ATTEMPT_ID))
    .order_by(AttemptRow.ended_at)
    .limit(_BATCH)
)


@dataclass(frozen=True)
class Waiting:
    """Jobs of one team that wait in one queue, and how many of them its quotas allow to run now.

    Ages are those of the oldest job, in seconds since it was submitted. Quotas apply to all queues together; each queue
    is counted as if the whole quota were its own.
    """

    queue: str
    team: str
    queued: int
    oldest_seconds: float
    runnable: int


def waiting_jobs(session: Session) -> list[Waiting]:
    """Return the waiting jobs by queue and team. Reads an index of waiting jobs, and the rows of their teams."""
    counted = (
        select(
            JobRow.queue,
            JobRow.team_id,
            func.count().label("queued"),
            func.min(JobRow.created_at).label("oldest"),
        )
        .where(JobRow.status == "queued")
        .group_by(JobRow.queue, JobRow.team_id)
        .subquery()
    )
    room = case(
        (TeamRow.max_device_seconds <= device_seconds_used(), 0),
        (TeamRow.max_running.is_(None), counted.c.queued),
        else_=func.least(counted.c.queued, func.greatest(TeamRow.max_running - TeamRow.running, 0)),
    )
    age = func.extract("epoch", func.clock_timestamp() - counted.c.oldest)
    rows = session.execute(
        select(counted.c.queue, TeamRow.name, counted.c.queued, age, room).join_from(
            counted, TeamRow, TeamRow.id == counted.c.team_id
        )
    )
    return [Waiting(queue, team, queued, float(oldest), runnable) for queue, team, queued, oldest, runnable in rows]


@dataclass(frozen=True)
class QueueFigures:
    """Figures of one queue.

    They are the number of waiting jobs, the age of the oldest of them (seconds since it was submitted), the number that
    the teams' quotas allow to run now, and the number of jobs that workers hold.
    """

    queue: str
    queued: int
    oldest_seconds: float
    runnable: int
    running: int


_SERVED = text("""
    WITH RECURSIVE queues (queue) AS (
        (SELECT queue FROM workers ORDER BY queue LIMIT 1)
        UNION ALL
        SELECT (SELECT workers.queue FROM workers WHERE workers.queue > queues.queue ORDER BY workers.queue LIMIT 1)
        FROM queues WHERE queues.queue IS NOT NULL
    )
    SELECT queue FROM queues WHERE queue IS NOT NULL
""")
"""Query that steps through the index of workers from queue to queue."""


def queue_figures(session: Session, waiting: Sequence[Waiting] | None = None) -> list[QueueFigures]:
    """Return the figures of every queue that has jobs now or that a worker serves.

    `waiting`: the waiting jobs, where the caller has read them already.
    """
    by_queue: dict[str, list[Waiting]] = defaultdict(list)
    for each in waiting_jobs(session) if waiting is None else waiting:
        by_queue[each.queue].append(each)
    leased = select(JobRow.queue, func.count().label("held")).where(text(JOB_IS_LEASED)).group_by(JobRow.queue)
    running = {row.queue: row.held for row in session.execute(leased)}
    served = session.scalars(_SERVED)
    return [
        QueueFigures(
            name,
            sum(each.queued for each in by_queue[name]),
            max((each.oldest_seconds for each in by_queue[name]), default=0.0),
            sum(each.runnable for each in by_queue[name]),
            running.get(name, 0),
        )
        for name in sorted({*by_queue, *running, *served})
    ]


def workers(session: Session, fresh_seconds: float) -> Sequence[WorkerRow]:
    """Return the workers with a heartbeat in the last `fresh_seconds`, oldest first."""
    fresh = select(WorkerRow).where(WorkerRow.heartbeat_at > seconds_from_statement(-fresh_seconds))
    return session.scalars(fresh.order_by(WorkerRow.started_at, WorkerRow.id)).all()


def own_jobs(session: Session, team_id: str, job_ids: Sequence[str]) -> set[str]:
    """Return the jobs among `job_ids` that belong to the team."""
    return set(session.scalars(select(JobRow.id).where(JobRow.id.in_(job_ids), JobRow.team_id == team_id)))


def attempt_totals(session: Session) -> Sequence[AttemptTotalRow]:
    return session.scalars(select(AttemptTotalRow)).all()


def stage_totals(session: Session) -> Sequence[StageTotalRow]:
    return session.scalars(select(StageTotalRow)).all()


def uncounted_attempts(session: Session) -> Sequence[str]:
    """Return `JOB/ATTEMPT` for a batch of ended attempts that are in no total yet."""
    return session.scalars(_UNCOUNTED.with_only_columns(_ATTEMPT_ID)).all()


def count_ended_attempts(session: Session, only: str | None = None) -> int:
    """Add a batch of newly ended attempts to the totals, oldest first; return their number.

    `only`: the `JOB/ATTEMPT` of a single attempt to add.
    """
    query = _UNCOUNTED if only is None else _UNCOUNTED.where(_ATTEMPT_ID.in_([only]))
    picked = query.with_for_update(skip_locked=True).cte("picked")
    ended = session.execute(
        update(AttemptRow)
        .where(tuple_(AttemptRow.job_id, AttemptRow.attempt).in_(select(picked.c.job_id, picked.c.attempt)))
        .values(counted=True)
        .returning(
            AttemptRow.queue,
            AttemptRow.method,
            AttemptRow.outcome,
            AttemptRow.error_code,
            AttemptRow.stages,
            AttemptRow.measured.is_not(None).label("is_measured"),
            func.extract("epoch", AttemptRow.ended_at - AttemptRow.started_at).label("seconds"),
        )
        .execution_options(synchronize_session=False)
    ).all()
    _add_attempts(session, ended)
    _add_stages(session, ended)
    keep_ratios(session, ((row.queue, row.method) for row in ended if row.is_measured))
    return len(ended)


def leave_out(attempt_id: str, session: Session, reason: SecateurError) -> bool:
    """Exclude from the totals an attempt that cannot be added to them."""
    session.execute(
        update(AttemptRow)
        .where(_ATTEMPT_ID.in_([attempt_id]), AttemptRow.job_id == attempt_id.partition("/")[0])
        .values(counted=True)
        .execution_options(synchronize_session=False)
    )
    return True


def _add_attempts(session: Session, ended: Sequence[Row[Any]]) -> None:
    attempts: Counter[tuple[str, ...]] = Counter()
    seconds: Counter[tuple[str, ...]] = Counter()
    for row in ended:
        key = (row.queue, row.method, row.outcome, row.error_code or "")
        attempts[key] += 1
        seconds[key] += row.seconds
    names = ("queue", "method", "outcome", "error_code")
    _add(session, AttemptTotalRow, names, attempts, seconds)


def _add_stages(session: Session, ended: Sequence[Row[Any]]) -> None:
    attempts: Counter[tuple[Any, ...]] = Counter()
    seconds: Counter[tuple[Any, ...]] = Counter()
    for row in ended:
        for stage, took in (row.stages or {}).items():
            key = (stage, row.outcome, next(bound for bound in STAGE_BOUNDS if took <= bound))
            attempts[key] += 1
            seconds[key] += took
    _add(session, StageTotalRow, ("stage", "outcome", "at_most"), attempts, seconds)


def _add(
    session: Session,
    table: type[AttemptTotalRow | StageTotalRow],
    names: tuple[str, ...],
    attempts: Counter[Any],
    seconds: Counter[Any],
) -> None:
    """Add to the totals. All processes lock rows in the same order, so that none of them deadlocks another."""
    if not attempts:
        return
    rows = [
        dict(zip(names, key, strict=True)) | {"attempts": attempts[key], "seconds": float(seconds[key])}
        for key in sorted(attempts)
    ]
    new = insert(table)
    session.execute(
        new.on_conflict_do_update(
            index_elements=list(names),
            set_={
                "attempts": table.attempts + new.excluded.attempts,
                "seconds": table.seconds + new.excluded.seconds,
            },
        ),
        rows,
    )
