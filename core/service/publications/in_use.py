"""Artifacts that publications use."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session

from core.service.publications.states import OPEN
from core.service.publications.tables import PublicationRow


def used_by_publications(session: Session, team_id: str, job_ids: Sequence[str]) -> dict[str, str]:
    """Return, for the jobs of `job_ids` whose artifact is being published, the id of the publication."""
    users = session.execute(
        select(PublicationRow.id, PublicationRow.job_id).where(
            PublicationRow.team_id == team_id,
            PublicationRow.status.in_(OPEN),
            PublicationRow.job_id.in_(job_ids),
        )
    )
    return {user.job_id: f"publication {user.id!r}, which is not over" for user in users}


def is_published(team_id: str, job_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that a job is in `used_by_publications`.

    `job_id` is a column of the enclosing query.
    """
    return exists().where(
        PublicationRow.team_id == team_id, PublicationRow.status.in_(OPEN), PublicationRow.job_id == job_id
    )
