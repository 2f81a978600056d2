"""Artifacts in use, which must not be removed."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, String, exists, literal, literal_column, or_, select, text, union_all
from sqlalchemy.orm import Session

from core.service.jobs.states import NOT_OVER
from core.service.jobs.tables import JOB_LEARNS, JOB_TEACHER, JobRow
from core.service.publications.in_use import is_published, used_by_publications
from core.service.sweeps.in_use import is_in_sweep, used_by_sweeps

_teacher: ColumnElement[str] = literal_column(JOB_TEACHER, String)


def artifacts_in_use(session: Session, team_id: str, job_ids: Sequence[str]) -> dict[str, str]:
    """Return the jobs with an artifact in use, each with its user (`job 'job_…', which is not over`)."""
    return (
        _used_by_jobs(session, team_id, job_ids)
        | used_by_publications(session, team_id, job_ids)
        | used_by_sweeps(session, team_id, job_ids)
    )


def is_in_use(team_id: str, job_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that a job is in `artifacts_in_use`; `job_id` is a column of the enclosing query."""
    named = literal("job:").concat(job_id)
    return or_(
        exists().where(JobRow.team_id == team_id, JobRow.status.in_(NOT_OVER), JobRow.model == named),
        exists().where(JobRow.team_id == team_id, text(JOB_LEARNS), _teacher == named),
        is_published(team_id, job_id),
        is_in_sweep(team_id, job_id),
    )


def _used_by_jobs(session: Session, team_id: str, job_ids: Sequence[str]) -> dict[str, str]:
    """Return the jobs whose artifact another job prunes further, or uses as the teacher of a recovery."""
    named = {f"job:{job_id}": job_id for job_id in job_ids}
    users = session.execute(
        union_all(
            select(JobRow.id, JobRow.model.label("used")).where(
                JobRow.team_id == team_id, JobRow.status.in_(NOT_OVER), JobRow.model.in_(named)
            ),
            select(JobRow.id, _teacher.label("used")).where(
                JobRow.team_id == team_id, text(JOB_LEARNS), _teacher.in_(named)
            ),
        )
    )
    return {named[user.used]: f"job {user.id!r}, which is not over" for user in users}
