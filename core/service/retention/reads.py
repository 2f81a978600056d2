"""Downloads of artifacts: an artifact that was read within the last hour is not removed.

If a file is removed during a download, a local store still sends the rest of it, and a bucket only the current piece. A
whole artifact is many files, requested one after the other. So each request for a file is recorded, at most once a
minute.
"""

from typing import Final

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import seconds_from_now
from core.service.retention.tables import ArtifactReadRow

READ_SECONDS: Final = 3600.0
_NOTED_EVERY_SECONDS: Final = 60.0


def note_read(session: Session, job_id: str) -> None:
    """Record that a file of the job's artifact was requested."""
    lately = ArtifactReadRow.read_at > seconds_from_now(-_NOTED_EVERY_SECONDS)
    if session.scalar(select(ArtifactReadRow.job_id).where(ArtifactReadRow.job_id == job_id, lately)) is not None:
        return
    row = insert(ArtifactReadRow).values(job_id=job_id)
    session.execute(
        row.on_conflict_do_update(
            index_elements=["job_id"],
            set_={"read_at": func.clock_timestamp()},
        )
    )


def is_being_read(job_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that a job's artifact was read within the last hour.

    `job_id` is a column of the enclosing query.
    """
    return exists().where(ArtifactReadRow.job_id == job_id, ArtifactReadRow.read_at > seconds_from_now(-READ_SECONDS))
