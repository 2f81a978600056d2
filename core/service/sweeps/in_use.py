"""Artifacts that sweeps use."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session

from core.service.sweeps.tables import SweepPointRow, SweepRow


def used_by_sweeps(session: Session, team_id: str, job_ids: Sequence[str]) -> dict[str, str]:
    """Return the jobs of a running sweep, because any of its artifacts may become its best."""
    users = session.execute(
        select(SweepPointRow.sweep_id, SweepPointRow.job_id)
        .join(SweepRow, SweepRow.id == SweepPointRow.sweep_id)
        .where(SweepRow.team_id == team_id, SweepRow.status == "running", SweepPointRow.job_id.in_(job_ids))
    )
    return {job_id: f"sweep {sweep_id!r}, which goes on" for sweep_id, job_id in users if job_id is not None}


def is_in_sweep(team_id: str, job_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that a job is in `used_by_sweeps`; `job_id` is a column of the enclosing query."""
    return exists().where(
        SweepPointRow.job_id == job_id,
        SweepRow.id == SweepPointRow.sweep_id,
        SweepRow.team_id == team_id,
        SweepRow.status == "running",
    )
