"""Artifacts in use: nobody may remove them."""

from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from core.service.jobs.states import STATUSES, TERMINAL
from core.service.jobs.tables import JobRow
from core.service.publications.states import OPEN
from core.service.publications.tables import PublicationRow
from core.service.sweeps.tables import SweepPointRow, SweepRow

NOT_OVER = [status for status in STATUSES if status not in TERMINAL]


def artifacts_in_use(session: Session, team_id: str, job_ids: Sequence[str]) -> dict[str, str]:
    """Return those of a team's jobs whose artifact is in use, each with its user (`job 'job_…', which is not over`).

    All kinds of users of artifacts are asked here.
    """
    return (
        _needed_by_jobs(session, team_id, job_ids)
        | needed_by_publications(session, team_id, job_ids)
        | _needed_by_sweeps(session, team_id, job_ids)
    )


def _needed_by_jobs(session: Session, team_id: str, job_ids: Sequence[str]) -> dict[str, str]:
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


def needed_by_publications(session: Session, team_id: str, job_ids: Sequence[str]) -> dict[str, str]:
    """Return, for the jobs of `job_ids` whose artifact is on its way somewhere, the publication that carries it."""
    users = session.execute(
        select(PublicationRow.id, PublicationRow.job_id).where(
            PublicationRow.team_id == team_id,
            PublicationRow.status.in_(OPEN),
            PublicationRow.job_id.in_(job_ids),
        )
    )
    return {user.job_id: f"publication {user.id!r}, which is not over" for user in users}


def _needed_by_sweeps(session: Session, team_id: str, job_ids: Sequence[str]) -> dict[str, str]:
    """Return those of a sweep that goes on: any of its artifacts may turn out to be its best."""
    users = session.execute(
        select(SweepPointRow.sweep_id, SweepPointRow.job_id)
        .join(SweepRow, SweepRow.id == SweepPointRow.sweep_id)
        .where(SweepRow.team_id == team_id, SweepRow.status == "running", SweepPointRow.job_id.in_(job_ids))
    )
    return {job_id: f"sweep {sweep_id!r}, which goes on" for sweep_id, job_id in users if job_id is not None}
