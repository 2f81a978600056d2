"""Corrections of the needs of waiting jobs by the measured needs of jobs of the same queue and method.

An estimate is corrected when the job is submitted (`core.service.jobs.estimates.history`); a job that was
submitted before there were enough others to learn from is corrected here, once there are. The medians are kept as
attempts end, so neither a claim nor a correction reads the attempts.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Subquery, and_, bindparam, or_, select, text, update
from sqlalchemy.orm import Session

from core.service.duties.isolation import is_tried
from core.service.jobs.admission import Room, needs_columns, needs_of
from core.service.jobs.tables import AttemptRow, JobRow, PeakRatioRow
from secateur_wire.errors import GateMissed, SecateurError

HISTORY = 200
"""Newest attempts that are used."""
FEWEST = 3
"""Attempts that are needed for a correction."""
DUTY: Final = "estimates"
_BATCH = 500
_UNCORRECTED = (
    select(JobRow, PeakRatioRow)
    .join(PeakRatioRow, and_(PeakRatioRow.queue == JobRow.queue, PeakRatioRow.method == JobRow.method))
    .where(JobRow.status == "queued", ~JobRow.is_corrected, is_tried(DUTY, JobRow.id))
    .limit(_BATCH)
)

_RATIO = """
    percentile_cont(0.5) WITHIN GROUP (
        ORDER BY (measured ->> '{figure}')::float8 / nullif((needs #>> '{{basis,formula,{figure}}}')::float8, 0)
    )
"""
_KEEP_RATIO = text(f"""
    INSERT INTO peak_ratios (queue, method, device_memory, memory, disk)
    SELECT
        :queue, :method,
        {_RATIO.format(figure="peak_device_memory_bytes")},
        {_RATIO.format(figure="peak_memory_bytes")},
        {_RATIO.format(figure="disk_bytes")}
    FROM (
        SELECT needs, measured FROM job_attempts
        WHERE queue = :queue AND method = :method AND needs IS NOT NULL AND measured IS NOT NULL
            AND (outcome = 'succeeded' OR error_code = :gate_missed)
        ORDER BY ended_at DESC
        LIMIT :history
    ) AS past
    HAVING count(*) >= :fewest
    ON CONFLICT (queue, method) DO UPDATE
    SET device_memory = excluded.device_memory, memory = excluded.memory, disk = excluded.disk
""")


def ran_to_its_end() -> ColumnElement[bool]:
    """Return the SQL condition of attempts that were measured to their end, with or without a missed gate.

    It is written as the index has it, so that PostgreSQL uses the index.
    """
    ended = or_(AttemptRow.outcome == "succeeded", AttemptRow.error_code == GateMissed.code)
    return and_(AttemptRow.measured.is_not(None), ended)


def newest_of_method(*columns: Any) -> Subquery:
    """Return these columns of the newest attempts that ran to their end, for the parameters `queue` and `method`."""
    return (
        select(*columns)
        .where(
            AttemptRow.queue == bindparam("queue"),
            AttemptRow.method == bindparam("method"),
            ran_to_its_end(),
            AttemptRow.needs.is_not(None),
        )
        .order_by(AttemptRow.ended_at.desc())
        .limit(HISTORY)
        .subquery()
    )


def keep_ratios(session: Session, ended: Iterable[tuple[str, str]]) -> None:
    """Update the medians of these queues and methods.

    They are updated in sorted order, so that two processes doing so do not wait for each other in turn.
    """
    values = {"gate_missed": GateMissed.code, "history": HISTORY, "fewest": FEWEST}
    for queue, method in sorted(set(ended)):
        session.execute(_KEEP_RATIO, {"queue": queue, "method": method, **values})


def uncorrected_jobs(session: Session) -> Sequence[str]:
    """Return ids of a batch of waiting jobs whose needs can be corrected."""
    return session.scalars(_UNCORRECTED.with_only_columns(JobRow.id)).all()


def correct_needs(session: Session, only: str | None = None) -> int:
    """Correct the needs of a batch of waiting jobs that can be, or of `only` one; returns of how many.

    Called again and again.
    """
    query = _UNCORRECTED if only is None else _UNCORRECTED.where(JobRow.id == only)
    jobs = session.execute(query.with_for_update(of=JobRow, skip_locked=True, key_share=True)).all()
    for job, ratio in jobs:
        needs = needs_of(job)
        corrected = Room(
            _times(needs.device_memory_bytes, ratio.device_memory),
            _times(needs.memory_bytes, ratio.memory),
            _times(needs.disk_bytes, ratio.disk),
        )
        session.execute(
            update(JobRow)
            .where(JobRow.id == job.id)
            .values(is_corrected=True, **needs_columns(corrected))
            .execution_options(synchronize_session=False)
        )
    return len(jobs)


def leave_as_estimated(job_id: str, session: Session, reason: SecateurError) -> bool:
    """Leave a job's needs as they were estimated."""
    session.execute(
        update(JobRow).where(JobRow.id == job_id).values(is_corrected=True).execution_options(synchronize_session=False)
    )
    return True


def _times(figure: int | None, ratio: float | None) -> int | None:
    return figure if figure is None or ratio is None else round(figure * ratio)
