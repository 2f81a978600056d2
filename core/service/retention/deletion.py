"""Deletion of models, datasets and artifacts, refused while an unfinished job needs them.

One transaction removes the rows and releases the team's bytes. The returned files are removed from the store after the
commit (`core.storage.removal`).
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlalchemy.orm import Session

from core.service.jobs.states import NOT_OVER, TERMINAL
from core.service.jobs.tables import ArtifactFileRow, JobRow
from core.service.registry.service import Row, get_row, noun
from core.service.registry.tables import DatasetRow
from core.service.retention.in_use import artifacts_in_use
from core.service.teams import audit
from core.service.teams.principal import Actor, team_of
from core.service.teams.quotas import release_stored
from core.storage import artifact_prefix
from secateur_wire.errors import Conflict, NotFound


def delete_registered(session: Session, caller: Actor, table: type[Row], name: str) -> Sequence[str]:
    """Remove a model or dataset; its uploaded files are removed, a folder of this machine stays.

    Raises NotFound, and Conflict that names a job that needs it.
    """
    team_id = team_of(caller)
    row = get_row(session, table, team_id, name, for_deletion=True)
    used = _uses_dataset(row.name) if table is DatasetRow else _uses_model(row.name)
    _require_unused(session, team_id, used, f"{noun(table)} {row.name!r}")
    audit.note(session, caller, f"{noun(table)}.delete", row.id, {"name": row.name})
    session.delete(row)
    session.flush()
    if row.prefix is None:
        return ()
    release_stored(session, team_id, sum(file["bytes"] for file in row.files or ()))
    return (row.prefix,)


def delete_artifacts(session: Session, caller: Actor, job_id: str) -> Sequence[str]:
    """Remove the files of every attempt of a job; its report stays. Does nothing where there are no files.

    Raises NotFound, and Conflict where the job is not over, or where something named in the error needs its artifact.
    """
    job = session.scalar(select(JobRow).where(JobRow.id == job_id, JobRow.team_id == team_of(caller)).with_for_update())
    if job is None:
        raise NotFound(f"there is no job {job_id!r}")
    if job.status not in TERMINAL:
        raise Conflict(f"job {job_id!r} is {job.status}: cancel it first")
    if user := artifacts_in_use(session, team_of(caller), [job_id]).get(job_id):
        raise Conflict(f"the artifact of job {job_id!r} is needed by {user}")
    removed = session.execute(
        delete(ArtifactFileRow)
        .where(ArtifactFileRow.job_id == job_id)
        .returning(ArtifactFileRow.attempt, ArtifactFileRow.bytes)
    ).all()
    if removed:
        count = sum(row.bytes for row in removed)
        audit.note(session, caller, "artifact.delete", job_id, {"files": len(removed), "bytes": count})
        release_stored(session, team_of(caller), count)
    return [artifact_prefix(job_id, attempt) for attempt in sorted({row.attempt for row in removed})]


def _uses_model(name: str) -> ColumnElement[bool]:
    return or_(JobRow.model == name, func.coalesce(JobRow.body["recovery"]["teacher"].astext == name, False))


def _uses_dataset(name: str) -> ColumnElement[bool]:
    return or_(
        JobRow.body["calibration"]["dataset"].astext == name,
        func.coalesce(JobRow.body["evaluation"]["datasets"].contains([name]), False),
        *(
            func.coalesce(JobRow.sources[part].contains([{"name": name}]), False)
            for part in ("answers", "recovery", "vocabulary")
        ),
        func.coalesce(JobRow.sources["images"]["recovery"]["name"].astext == name, False),
    )


def _require_unused(session: Session, team_id: str, used: ColumnElement[bool], what: str) -> None:
    job_id = session.scalar(
        select(JobRow.id).where(JobRow.team_id == team_id, JobRow.status.in_(NOT_OVER), used).limit(1)
    )
    if job_id is not None:
        raise Conflict(f"{what} is needed by job {job_id!r}, which is not over")
