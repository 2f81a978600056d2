"""Service of publications, within one team: publish, read, cancel."""

import json

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import new_id, seconds_from_now
from core.pagination import Listing, read_page
from core.service.jobs.service import find_job
from core.service.jobs.states import TERMINAL
from core.service.jobs.tables import ArtifactFileRow, JobRow, kept_attempt
from core.service.publications import queue
from core.service.publications.destinations import destination_of, read_destination
from core.service.publications.schemas import PublicationBody
from core.service.publications.states import OPEN
from core.service.publications.tables import PublicationRow
from core.service.teams import audit
from core.service.teams.principal import Actor, name_of, team_of
from core.service.teams.sealing import SecretCipher
from core.settings import Settings
from secateur_wire.base import Page
from secateur_wire.errors import Conflict, GateMissed, NoArtifact, NotFound
from secateur_wire.publications import Publication, PublicationError, PublicationProgress, PublicationResult

_PURPOSE = "publication"


def sealed(secret: bytes) -> SecretCipher:
    """Return the cipher for the credentials of publications only. `secret` is the server's."""
    return SecretCipher(secret, _PURPOSE)


def publish(
    session: Session, caller: Actor, job_id: str, body: PublicationBody, *, settings: Settings, secret: bytes
) -> Publication:
    """Queue the artifact of a job for a destination; the dispatcher sends it there.

    Raises NotFound; InvalidRequest for an invalid destination; NoArtifact where there is nothing to publish; Conflict
    where another publication of the team writes to the same place.
    """
    team_id = team_of(caller)
    query = select(JobRow).where(JobRow.id == job_id, JobRow.team_id == team_id)
    # The lock keeps its artifact from being deleted meanwhile.
    job = session.scalar(query.with_for_update(read=True, key_share=True))
    if job is None:
        raise NotFound(f"there is no job {job_id!r}")
    destination = destination_of(body, settings)
    attempt = session.scalar(select(kept_attempt()).where(JobRow.id == job.id))
    sizes = session.scalars(
        select(ArtifactFileRow.bytes).where(ArtifactFileRow.job_id == job.id, ArtifactFileRow.attempt == attempt)
    ).all()
    _require_publishable(job, has_artifact=bool(sizes), despite_gates=body.despite_gates)
    row_id = session.scalar(
        insert(PublicationRow)
        .values(
            id=new_id("pub"),
            team_id=team_id,
            job_id=job.id,
            job_attempt=attempt,
            actor=name_of(caller),
            place=destination.place,
            destination=destination.model_dump(mode="json"),
            credentials=sealed(secret).seal(json.dumps(body.secrets())),
            files=len(sizes),
            bytes=sum(sizes),
            expires_at=seconds_from_now(queue.EXPIRE_SECONDS),
        )
        .on_conflict_do_nothing()
        .returning(PublicationRow.id)
    )
    if row_id is None:
        open_one = session.scalar(
            select(PublicationRow.id).where(
                PublicationRow.team_id == team_id,
                PublicationRow.place == destination.place,
                PublicationRow.status.in_(OPEN),
            )
        )
        raise Conflict(f"publication {open_one!r} to {destination.place} has not finished: wait for it, or cancel it")
    audit.note(session, caller, "publication.create", row_id, {"job": job.id, "to": destination.place})
    return get_publication(session, team_id, row_id)


def _require_publishable(job: JobRow, *, has_artifact: bool, despite_gates: bool) -> None:
    """Require an artifact that may be published; raises NoArtifact.

    The artifact of an unsuccessful job comes from an attempt that missed a gate.
    """
    if job.status not in TERMINAL:
        raise NoArtifact(f"job {job.id!r} is {job.status}: its artifact can be published when it has ended")
    if not has_artifact:
        left_one = job.status == "succeeded" or (job.error or {}).get("code") == GateMissed.code
        raise NoArtifact(
            f"job {job.id!r} has no artifact: it was removed"
            if left_one
            else f"job {job.id!r} is {job.status}, and left no artifact to publish"
        )
    if job.status != "succeeded" and not despite_gates:
        raise NoArtifact(
            f"job {job.id!r} missed a gate: to publish its artifact anyway, set despite_gates",
            param="despite_gates",
        )


def list_publications(
    session: Session, team_id: str, job_id: str, *, limit: int, after: str | None
) -> Page[Publication]:
    """Return the publications of a job, newest first. Raises NotFound."""
    job = find_job(session, team_id, job_id)
    query = select(PublicationRow).where(PublicationRow.job_id == job.id)
    return read_page(session, Listing(query, PublicationRow, _answer), limit=limit, after=after)


def get_publication(session: Session, team_id: str, publication_id: str) -> Publication:
    """Return a publication; raises NotFound, also for another team's."""
    return _answer(_find(session, team_id, publication_id))


def cancel_publication(session: Session, caller: Actor, publication_id: str) -> Publication:
    """Stop a publication; files that have arrived stay there. Idempotent.

    Raises NotFound, and Conflict where it has ended in another way.
    """
    row = _find(session, team_of(caller), publication_id)
    if queue.cancel(session, row.id):
        audit.note(session, caller, "publication.cancel", row.id, {"job": row.job_id})
    session.refresh(row)
    if row.status != "cancelled":
        raise Conflict(f"the publication has {row.status}: there is nothing to cancel")
    return _answer(row)


def _find(session: Session, team_id: str, publication_id: str) -> PublicationRow:
    row = session.scalar(
        select(PublicationRow).where(PublicationRow.id == publication_id, PublicationRow.team_id == team_id)
    )
    if row is None:
        raise NotFound(f"there is no publication {publication_id!r}")
    return row


def _answer(row: PublicationRow) -> Publication:
    destination = read_destination(row.destination)  # One unreadable publication must not hide the others.
    stored = {} if destination is None else row.destination
    chosen = {name: stored.get(name) for name in ("revision", "private", "message", "region", "endpoint")}
    return Publication.model_validate(
        {
            **chosen,
            "id": row.id,
            "job_id": row.job_id,
            "to": row.place if destination is None else destination.to,
            "status": row.status,
            "attempt": row.attempt,
            "progress": PublicationProgress(
                files=row.files_done, files_total=row.files, bytes=row.bytes_done, bytes_total=row.bytes
            ),
            "result": None if row.result is None else PublicationResult.model_validate(row.result, extra="ignore"),
            "error": None if row.error is None else PublicationError.model_validate(row.error, extra="ignore"),
            "created_at": row.created_at,
            "started_at": row.started_at,
            "finished_at": row.finished_at,
            "expires_at": row.expires_at,
        }
    )
