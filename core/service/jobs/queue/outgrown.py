"""Retry of jobs that ran out of memory: once on each larger size of worker."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session, aliased

from core.database import seconds_from_statement
from core.service.jobs.queue.attempts import ChangedJob, Ending
from core.service.jobs.queue.transitions import Transition, transition
from core.service.jobs.tables import JobRow, WorkerRow
from secateur_wire.errors import OutOfMemory

NOTHING_OUTGROWN = {"outgrown_device_memory_bytes": None, "outgrown_memory_bytes": None}
"""Columns of a job that may run on any worker again."""


def queue_for_more_memory(
    session: Session, job_id: str, attempt: int, error: Mapping[str, Any], ending: Ending, fresh_seconds: float
) -> ChangedJob | None:
    """Queue a job again whose attempt ran out of memory, if a worker of its queue has more.

    The worker must have had a heartbeat in `fresh_seconds`. Only such a worker may claim the job. The attempt does not
    count. None where `error` is another error, no worker has more memory, or the attempt is stale or being cancelled.
    """
    if error["code"] != OutOfMemory.code:
        return None
    own, other = aliased(WorkerRow), aliased(WorkerRow)
    has = [func.coalesce(own.device_memory_bytes, 0), func.coalesce(own.memory_bytes, 0)]
    others = [func.coalesce(other.device_memory_bytes, 0), func.coalesce(other.memory_bytes, 0)]
    outgrown = session.execute(
        select(has[0].label("device_memory"), has[1].label("memory"))
        .join(JobRow, JobRow.worker_id == own.id)
        .where(
            JobRow.id == job_id,
            JobRow.attempt == attempt,
            select(other.id)
            .where(
                other.queue == JobRow.queue,
                other.heartbeat_at > seconds_from_statement(-fresh_seconds),
                tuple_(*others) > tuple_(*has),
            )
            .exists(),
        )
    ).one_or_none()
    if outgrown is None:
        return None
    return transition(
        session,
        job_id,
        Transition(
            ("running",),
            "queued",
            attempt=attempt,
            data={"reason": "failed", "error": {**error, "retryable": True}},
            values={
                "attempts_allowed": JobRow.attempts_allowed + 1,
                "available_at": func.clock_timestamp(),
                "dispatched_at": None,
                "outgrown_device_memory_bytes": outgrown.device_memory,
                "outgrown_memory_bytes": outgrown.memory,
            },
            ending=ending,
        ),
    )
