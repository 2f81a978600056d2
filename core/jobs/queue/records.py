"""What a worker records while it runs a job."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

from core.jobs.queue.writes import record, write
from core.jobs.states import HELD, STAGES, EventType, Stage
from core.jobs.tables import JobRow


def set_stage(session: Session, job_id: str, attempt: int, stage: Stage) -> bool:
    """Record that a stage begins; False where the attempt is stale."""
    assert stage in STAGES, stage
    written = write(session, job_id, attempt=attempt, statuses=HELD, values={"stage": stage})
    if written is None:
        return False
    record(session, written, "stage", {"stage": stage})
    return True


def set_progress(
    session: Session, job_id: str, attempt: int, progress: float, data: Mapping[str, Any] | None = None
) -> bool:
    """Record progress from 0 to 1 (with e.g. `block` and `blocks`); False where the attempt is stale.

    Progress never goes back: a smaller value leaves the job's as it is, and the event carries the job's.
    """
    assert 0 <= progress <= 1, progress
    values = {"progress": func.greatest(JobRow.progress, progress)}
    written = write(session, job_id, attempt=attempt, statuses=HELD, values=values)
    if written is None:
        return False
    record(session, written, "progress", {**(data or {}), "progress": written.progress})
    return True


def append_event(session: Session, job_id: str, attempt: int, type: EventType, data: Mapping[str, Any]) -> bool:
    """Record a log line or a metric; False where the attempt is stale. Stages, progress and states have their own."""
    assert type in ("log", "metric"), type
    written = write(session, job_id, attempt=attempt, statuses=HELD, values={})
    if written is None:
        return False
    record(session, written, type, data)
    return True
