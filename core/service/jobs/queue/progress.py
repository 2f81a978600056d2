"""Records that a worker writes while it runs a job."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

from core.service.jobs.queue.transitions import write
from core.service.jobs.states import LEASED, STAGES
from core.service.jobs.tables import JobRow
from secateur_wire.states import EventType, Stage


def set_stage(session: Session, job_id: str, attempt: int, stage: Stage) -> bool:
    """Record that a stage begins; False where the attempt is stale."""
    assert stage in STAGES, stage
    return _write(session, job_id, attempt, "stage", {"stage": stage}, {"stage": stage})


def set_progress(
    session: Session, job_id: str, attempt: int, progress: float, data: Mapping[str, Any] | None = None
) -> bool:
    """Record progress from 0 to 1 (with e.g. `block` and `blocks`); False where the attempt is stale.

    Progress never goes back: a smaller value leaves the job's as it is, and the event carries the job's.
    """
    assert 0 <= progress <= 1, progress
    return _write(
        session, job_id, attempt, "progress", data or {}, {"progress": func.greatest(JobRow.progress, progress)}
    )


def append_event(session: Session, job_id: str, attempt: int, type: EventType, data: Mapping[str, Any]) -> bool:
    """Record a log line or a metric; False where the attempt is stale. Stages, progress and states have their own."""
    assert type in ("log", "metric"), type
    return _write(session, job_id, attempt, type, data, {})


def _write(
    session: Session,
    job_id: str,
    attempt: int,
    event: EventType,
    data: Mapping[str, Any],
    values: Mapping[str, Any],
) -> bool:
    written = write(session, job_id, attempt=attempt, statuses=LEASED, values=values, event=event, data=data)
    return written is not None
