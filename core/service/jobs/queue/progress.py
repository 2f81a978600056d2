"""Records that a worker writes while it runs a job."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

from core.service.jobs.queue.transitions import JobChange, write
from core.service.jobs.states import LEASED, STAGES
from core.service.jobs.tables import JobRow
from secateur_wire.states import EventType, Stage


def set_stage(session: Session, job_id: str, attempt: int, stage: Stage) -> bool:
    """Record the begin of a stage; False where the attempt is stale."""
    assert stage in STAGES, stage
    data = {"stage": stage}
    return _is_written(session, job_id, JobChange(LEASED, "stage", data, data, attempt))


def set_progress(
    session: Session, job_id: str, attempt: int, progress: float, data: Mapping[str, Any] | None = None
) -> bool:
    """Record progress from 0 to 1 (with e.g. `block` and `blocks`); False where the attempt is stale.

    Progress never decreases: a smaller value does not change the job, and the event has the job's value.
    """
    assert 0 <= progress <= 1, progress
    values = {"progress": func.greatest(JobRow.progress, progress)}
    return _is_written(session, job_id, JobChange(LEASED, "progress", data or {}, values, attempt))


def append_event(session: Session, job_id: str, attempt: int, type: EventType, data: Mapping[str, Any]) -> bool:
    """Record a log line or a metric; False where the attempt is stale. Other events have functions of their own."""
    assert type in ("log", "metric"), type
    return _is_written(session, job_id, JobChange(LEASED, type, data, attempt=attempt))


def _is_written(session: Session, job_id: str, change: JobChange) -> bool:
    return write(session, job_id, change) is not None
