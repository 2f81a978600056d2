"""What the dispatcher and the workers keep up: hints that are due, and signs of life."""

from collections.abc import Sequence

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import seconds_from_now
from core.jobs.tables import JobRow, WorkerRow

HINTS_PER_QUEUE = 100
"""A hint only says that there is work, so a long queue needs no more of them than it could have idle workers."""


def hints_due(session: Session, stale_seconds: float) -> list[tuple[str, str]]:
    """(job, queue) of queued jobs without a hint in the last `stale_seconds`, among the first of each queue."""
    place = func.row_number().over(
        partition_by=JobRow.queue, order_by=(JobRow.priority.desc(), JobRow.created_at, JobRow.id)
    )
    first = (
        select(JobRow.id, JobRow.queue, JobRow.dispatched_at, place.label("place"))
        .where(JobRow.status == "queued", JobRow.available_at <= func.clock_timestamp())
        .subquery()
    )
    due = select(first.c.id, first.c.queue).where(
        first.c.place <= HINTS_PER_QUEUE,
        or_(first.c.dispatched_at.is_(None), first.c.dispatched_at < seconds_from_now(-stale_seconds)),
    )
    return [(row.id, row.queue) for row in session.execute(due.order_by(first.c.queue, first.c.place))]


def mark_dispatched(session: Session, job_ids: Sequence[str]) -> None:
    """Note that hints are sent. Commit first, then send: a worker that is quick skips a row that is being written."""
    session.execute(
        update(JobRow)
        .where(JobRow.id.in_(job_ids), JobRow.status == "queued")
        .values(dispatched_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )


def hint_failed(session: Session, job_id: str) -> None:
    """Note that a hint could not be sent, so that the dispatcher sends it with its next round."""
    session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.status == "queued")
        .values(dispatched_at=None)
        .execution_options(synchronize_session=False)
    )


def heartbeat(
    session: Session, worker_id: str, *, queue: str, device: str, hostname: str, pid: int, job_id: str | None = None
) -> None:
    """A worker's sign of life; the first one registers it."""
    facts = {"queue": queue, "device": device, "hostname": hostname, "pid": pid, "job_id": job_id}
    session.execute(
        insert(WorkerRow)
        .values(id=worker_id, **facts)
        .on_conflict_do_update(index_elements=["id"], set_={**facts, "heartbeat_at": func.clock_timestamp()})
    )


def remove_worker(session: Session, worker_id: str) -> None:
    """A worker says goodbye."""
    session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))


def fresh_workers(session: Session, fresh_seconds: float) -> int:
    """How many workers gave a sign of life in the last `fresh_seconds`."""
    fresh = select(func.count()).where(WorkerRow.heartbeat_at > seconds_from_now(-fresh_seconds))
    return session.scalar(fresh) or 0
