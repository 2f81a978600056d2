"""Comparison of a team's jobs, by their ids."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import InvalidRequest
from core.service.jobs.comparison import FEWEST, MOST, Comparison, compare
from core.service.jobs.service import get_jobs, of_kept_attempt
from core.service.jobs.tables import JobReportRow, JobRow
from secateur_wire.sweeps import Cost


def compare_jobs(
    session: Session, team_id: str, job_ids: Sequence[str], *, quality: str | None = None, cost: Cost | None = None
) -> Comparison:
    """Compare jobs, each once. Raises NotFound, InvalidRequest where they are too few or too many."""
    ids = list(dict.fromkeys(job_ids))
    jobs = get_jobs(session, team_id, ids[: MOST + 1])
    if not FEWEST <= len(ids) <= MOST:
        raise InvalidRequest(f"job: name {FEWEST} to {MOST} different jobs, not {len(ids)}", param="job")
    reports = select(JobReportRow.job_id, JobReportRow.report["layers"]).join(JobRow, of_kept_attempt(JobReportRow))
    layers = {
        job_id: rows for job_id, rows in session.execute(reports.where(JobRow.id.in_(ids))) if isinstance(rows, list)
    }
    return compare(jobs, layers, quality=quality, cost=cost)
