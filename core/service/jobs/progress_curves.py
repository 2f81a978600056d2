"""Progress curves: the share of an attempt's time that past attempts had spent at each progress of the job."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, Double, bindparam, case, cast, func, select
from sqlalchemy.orm import Session, aliased

from core.service.jobs.estimates.corrections import newest_of_method
from core.service.jobs.tables import AttemptRow, JobEventRow, JobRow

Curve = Sequence[tuple[float, float]]
"""Pairs of progress and time share, both from 0 to 1 and ascending."""
MOST: Final = 3
"""Number of past attempts whose events are read."""

_OWN = aliased(JobRow)


def _trains(job: type[JobRow]) -> ColumnElement[bool]:
    trains: ColumnElement[bool] = job.body["recovery"].astext.is_not(None)
    return trains


def _exports(job: type[JobRow]) -> ColumnElement[bool]:
    return func.coalesce(func.jsonb_array_length(job.body["output"]["exports"]), 0) > 0


_NEWEST = newest_of_method(AttemptRow.job_id, AttemptRow.attempt, AttemptRow.ended_at, AttemptRow.needs)
_ALIKE = (
    select(_NEWEST.c.job_id, _NEWEST.c.attempt, _NEWEST.c.ended_at)
    .join(JobRow, JobRow.id == _NEWEST.c.job_id)
    .join(_OWN, _OWN.id == bindparam("job_id"))
    .where(
        JobRow.attempt == _NEWEST.c.attempt,
        _NEWEST.c.attempt == 1,
        JobRow.events_removed_at.is_(None),
        _trains(JobRow) == _trains(_OWN),
        _exports(JobRow) == _exports(_OWN),
    )
    .order_by(
        case((JobRow.model_revision == _OWN.model_revision, 0), else_=1),
        func.abs(
            func.ln(
                cast(_NEWEST.c.needs["basis"]["formula"]["seconds"].astext, Double) / bindparam("seconds", type_=Double)
            )
        ),
        _NEWEST.c.ended_at.desc(),
    )
    .limit(MOST)
)
"""Attempts with the same kinds of stages, on the same model first, then of about the same length."""


def progress_curves(session: Session, *, queue: str, method: str, job_id: str, formula_seconds: float) -> list[Curve]:
    """Return the curves of the past attempts that resemble a job most; empty where there is none.

    Attempts that began anew or went on from an earlier one are left out: their progress is not all their own work.
    """
    wanted = {"queue": queue, "method": method, "job_id": job_id, "seconds": formula_seconds}
    curves = []
    for past, attempt, ended_at in session.execute(_ALIKE, wanted):
        part = JobEventRow.data["part"]
        began = session.execute(
            select(part, func.min(JobEventRow.created_at))
            .where(
                JobEventRow.job_id == past,
                JobEventRow.attempt == attempt,
                JobEventRow.type == "progress",
                part.is_not(None),
            )
            .group_by(part)
            .order_by(func.min(JobEventRow.created_at))
        ).all()
        first = began[0][1] if began else ended_at
        duration = (ended_at - first).total_seconds()
        if duration > 0:
            points = [(float(start), (at - first).total_seconds() / duration) for (start, _), at in began]
            curves.append(_ascending(points))
    return curves


def _ascending(points: Sequence[tuple[float, float]]) -> Curve:
    """Return the points with the first time at each progress, from the begin to the end of the work."""
    curve = [(0.0, 0.0)]
    for progress, share in points:
        if progress > curve[-1][0] and progress < 1:
            curve.append((progress, min(max(share, curve[-1][1]), 1.0)))
    return [*curve, (1.0, 1.0)]
