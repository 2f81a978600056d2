"""Remaining uses of a job's work folder, from the queue of record."""

from collections.abc import Collection
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.database import seconds_from_now
from core.service.jobs.states import LEASED
from core.service.jobs.tables import JobRow

WorkUse = Literal["retry", "held", "queued"]
"""Uses: a retry that a user may request, an attempt that a worker holds now, an attempt that will come."""
WORK_USES: tuple[WorkUse, ...] = ("retry", "held", "queued")
"""Uses in the order in which their folders are removed when the disk is nearly full, the smallest loss first."""


def uses_of_work(session: Session, job_ids: Collection[str], resume_keep_seconds: float) -> dict[str, WorkUse | None]:
    """Return the use of the work folder of each job that the database knows, None for an unused folder.

    A job that succeeded does not need its folder any more. Neither does one that failed or was cancelled more than
    `resume_keep_seconds` ago.
    """
    is_kept = func.coalesce(JobRow.finished_at > seconds_from_now(-resume_keep_seconds), False).label("is_kept")
    rows = session.execute(select(JobRow.id, JobRow.status, is_kept).where(JobRow.id.in_(job_ids)))
    return {row.id: _use(row.status, row.is_kept) for row in rows}


def _use(status: str, is_kept: bool) -> WorkUse | None:
    if status in LEASED:
        return "held"
    if status == "queued":
        return "queued"
    return "retry" if status != "succeeded" and is_kept else None
