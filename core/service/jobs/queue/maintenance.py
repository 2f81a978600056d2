"""Maintenance of the queue by the dispatcher: due hints, and expired events."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from core.database import seconds_from_statement
from core.service.jobs.tables import JobEventRow, JobRow

HINTS_PER_QUEUE = 100
"""Maximum number of hints in the broker. A hint only says that there is work, so a long queue needs no more hints than
there may be idle workers."""

_RETENTION_BATCH = 200
"""Number of jobs whose events are removed in one call: about ten thousand rows at most."""

_HINTS_DUE = text("""
    WITH RECURSIVE queues (queue) AS (
        (SELECT queue FROM jobs WHERE status = 'queued' ORDER BY queue LIMIT 1)
        UNION ALL
        SELECT (
            SELECT jobs.queue FROM jobs
            WHERE jobs.status = 'queued' AND jobs.queue > queues.queue ORDER BY jobs.queue LIMIT 1
        )
        FROM queues WHERE queues.queue IS NOT NULL
    )
    SELECT first.id, queues.queue
    FROM queues CROSS JOIN LATERAL (
        SELECT id, priority, created_at, dispatched_at FROM jobs
        WHERE queue = queues.queue AND status = 'queued' AND available_at <= clock_timestamp()
            AND awaits_discovery IS NULL
        ORDER BY priority DESC, created_at, id
        LIMIT :most
    ) AS first
    WHERE first.dispatched_at IS NULL
        OR first.dispatched_at < clock_timestamp() - make_interval(secs => :stale_seconds)
    ORDER BY queues.queue, first.priority DESC, first.created_at, first.id
""")
"""Query that steps through the index from queue to queue, and reads the first jobs of each."""


def hints_due(session: Session, stale_seconds: float) -> list[tuple[str, str]]:
    """Return (job, queue) of queued jobs without a hint in the last `stale_seconds`, among the first of each queue."""
    due = session.execute(_HINTS_DUE, {"most": HINTS_PER_QUEUE, "stale_seconds": stale_seconds})
    return [(row.id, row.queue) for row in due]


def mark_dispatched(session: Session, job_ids: Sequence[str]) -> None:
    """Record that hints are sent. Commit first, then send: a fast worker would skip a row that is still locked.

    A job that another transaction is writing to is left as it is: two dispatchers that wait for each other's rows would
    deadlock, and an extra hint does no harm.
    """
    free = select(JobRow.id).where(JobRow.id.in_(job_ids), JobRow.status == "queued")
    session.execute(
        update(JobRow)
        .where(JobRow.id.in_(free.with_for_update(key_share=True, skip_locked=True)))
        .values(dispatched_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )


def hint_failed(session: Session, job_id: str) -> None:
    """Record that a hint could not be sent, so that the dispatcher sends it in its next round."""
    session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.status == "queued")
        .values(dispatched_at=None)
        .execution_options(synchronize_session=False)
    )


def remove_old_events(session: Session, retention_days: float) -> int:
    """Remove the events of a batch of jobs that ended over `retention_days` ago; return the number of jobs.

    The jobs, their attempts and their reports stay. Callers repeat this until nothing is left.
    """
    ended = session.scalars(
        select(JobRow.id)
        .where(
            JobRow.finished_at.is_not(None),
            JobRow.events_removed_at.is_(None),
            JobRow.finished_at < seconds_from_statement(-retention_days * 24 * 3600),
        )
        .order_by(JobRow.finished_at)
        .limit(_RETENTION_BATCH)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    if ended:
        session.execute(delete(JobEventRow).where(JobEventRow.job_id.in_(ended)))
        session.execute(
            update(JobRow)
            .where(JobRow.id.in_(ended))
            .values(events_removed_at=func.clock_timestamp())
            .execution_options(synchronize_session=False)
        )
    return len(ended)
