"""Time left of a running job: as its worker said last, or else as its estimate says."""

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.service.jobs.states import LEASED
from core.service.jobs.tables import JobEventRow, JobRow
from secateur_wire.progress import seconds_range


def seconds_left(session: Session, row: JobRow) -> tuple[float, float] | None:
    """Return the least and the most seconds that a running attempt will still take.

    The time since the worker said it is subtracted. None where nothing is known, or that time is over.
    """
    if row.status not in LEASED or row.started_at is None:
        return None
    said = session.execute(
        select(JobEventRow.data["seconds_left"], JobEventRow.created_at)
        .where(
            JobEventRow.job_id == row.id,
            JobEventRow.sequence <= row.last_event,
            JobEventRow.attempt == row.attempt,
            JobEventRow.type == "progress",
        )
        .order_by(JobEventRow.sequence.desc())
        .limit(1)
    ).one_or_none()
    if said is not None and said[0] is not None:
        (least, most), since = said
    elif row.estimate is not None:
        (least, most), since = (
            seconds_range(row.estimate["seconds"], row.estimate["basis"]["seconds_deviation"]),
            row.started_at,
        )
    else:
        return None
    past = (datetime.now(UTC) - since).total_seconds()
    return None if most <= past else (max(least - past, 0.0), most - past)
