"""Artifacts in use: nobody may remove them."""

from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from core.service.jobs.states import NOT_OVER
from core.service.jobs.tables import JobRow
from core.service.publications.in_use import used_by_publications
from core.service.sweeps.in_use import used_by_sweeps


def artifacts_in_use(session: Session, team_id: str, job_ids: Sequence[str]) -> dict[str, str]:
    """Return those of a team's jobs whose artifact is in use, each with its user (`job 'job_…', which is not over`)."""
    return (
        _used_by_jobs(session, team_id, job_ids)
        | used_by_publications(session, team_id, job_ids)
        | used_by_sweeps(session, team_id, job_ids)
    )


def _used_by_jobs(session: Session, team_id: str, job_ids: Sequence[str]) -> dict[str, str]:
    """Return those used as the model that is pruned further, or as the teacher of a recovery."""
    named = {f"job:{job_id}": job_id for job_id in job_ids}
    teacher = JobRow.body["recovery"]["teacher"].astext
    users = session.execute(
        select(JobRow.id, JobRow.model, teacher.label("teacher")).where(
            JobRow.team_id == team_id,
            JobRow.status.in_(NOT_OVER),
            or_(JobRow.model.in_(named), teacher.in_(named)),
        )
    )
    return {
        named[used]: f"job {user.id!r}, which is not over"
        for user in users
        for used in (user.model, user.teacher)
        if used in named
    }
