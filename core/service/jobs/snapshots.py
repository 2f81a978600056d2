"""Snapshot of a job at one event, from which a page follows the later events."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.service.jobs.schemas import Job
from core.service.jobs.service import find_job, job_answer
from core.service.jobs.tables import JobEventRow
from core.service.jobs.time_left import seconds_left
from secateur_wire.jobs import JobEvent
from secateur_wire.states import EventType


@dataclass(frozen=True)
class Snapshot:
    """State of a job when event `last_event` was its newest.

    It contains all events to that number, and none of the later ones. `events_removed_at` is when retention removed its
    events.
    """

    job: Job
    last_event: int
    events_removed_at: datetime | None


def take_snapshot(session: Session, team_id: str, job_id: str) -> Snapshot:
    """Return the job's state from its row, which every event changes too, and its newest progress. Raises NotFound."""
    row = find_job(session, team_id, job_id)
    return Snapshot(
        job=job_answer(row, left=seconds_left(session, row)),
        last_event=row.last_event,
        events_removed_at=row.events_removed_at,
    )


def newest_events(
    session: Session,
    team_id: str,
    job_id: str,
    types: Collection[EventType],
    *,
    up_to: int,
    limit: int | None = None,
    attempt: int | None = None,
) -> Sequence[JobEvent]:
    """Return the newest events of these types with numbers to `up_to`, oldest first. Raises NotFound."""
    find_job(session, team_id, job_id)
    query = select(JobEventRow).where(
        JobEventRow.job_id == job_id, JobEventRow.sequence <= up_to, JobEventRow.type.in_(types)
    )
    if attempt is not None:
        query = query.where(JobEventRow.attempt == attempt)
    rows = session.scalars(query.order_by(JobEventRow.sequence.desc()).limit(limit)).all()
    return [JobEvent.model_validate(row, from_attributes=True) for row in reversed(rows)]


def metric_names(session: Session, job_id: str, *, up_to: int) -> set[str]:
    """Return the names of all metrics in a job's events to `up_to`."""
    name = JobEventRow.data["name"].astext
    return set(
        session.scalars(
            select(name)
            .where(JobEventRow.job_id == job_id, JobEventRow.sequence <= up_to, JobEventRow.type == "metric")
            .distinct()
        )
    )
