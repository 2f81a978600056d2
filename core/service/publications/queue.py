"""Queue of publications: claim, renew, end. Every function is part of the caller's transaction.

A claim raises `attempt`, which every later write carries: a dispatcher that lost its publication writes nothing more.
Credentials are erased when a publication ends; a database constraint enforces this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from core.database import seconds_from_now
from core.service.jobs.tables import ArtifactFileRow
from core.service.publications.destinations import Destination, destinations, read_destination
from core.service.publications.states import OPEN
from core.service.publications.tables import PublicationRow
from core.service.teams import audit
from core.service.teams.principal import Automation
from secateur_wire.errors import PublicationExpired
from secateur_wire.states import PublicationStatus

EXPIRE_SECONDS: Final = 24 * 3600.0
MOST_ATTEMPTS: Final = 12
_LONGEST_DELAY_SECONDS: Final = 1800.0

ACTIONS: Final = {"succeeded": "publication.succeed", "failed": "publication.fail"}


@dataclass(frozen=True)
class PublishedFile:
    """One file of the artifact."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ClaimedPublication:
    """Publication that a dispatcher has claimed. `files` is None where the artifact was removed meanwhile.

    Its destination is a `document` until it is used: an unreadable one fails only its own publication.
    """

    id: str
    attempt: int
    job_id: str
    job_attempt: int
    place: str
    document: Mapping[str, Any]
    credentials: bytes
    files: Sequence[PublishedFile]

    @property
    def to(self) -> str:
        """Return the destination as a text for logs and the audit trail."""
        destination = read_destination(self.document)
        return self.place if destination is None else destination.to

    @property
    def destination(self) -> Destination:
        """Return the destination; raises pydantic's ValidationError where this release cannot read it."""
        return destinations.validate_python(self.document)


def claim(session: Session, *, lease_seconds: float) -> ClaimedPublication | None:
    """Take the next publication: from the team with the fewest running, then the oldest. None where none is due.

    A publication whose dispatcher stopped renewing is due again.
    """
    others = aliased(PublicationRow)
    on_their_way = (
        select(func.count())
        .where(
            others.team_id == PublicationRow.team_id,
            others.status == "running",
            others.lease_expires_at > func.clock_timestamp(),
        )
        .scalar_subquery()
    )
    due = or_(
        and_(PublicationRow.status == "queued", PublicationRow.available_at <= func.clock_timestamp()),
        and_(PublicationRow.status == "running", _is_lost()),
    )
    picked = session.scalar(
        select(PublicationRow.id)
        .where(
            PublicationRow.status.in_(OPEN),
            due,
            PublicationRow.expires_at > func.clock_timestamp(),
            PublicationRow.attempt < MOST_ATTEMPTS,
        )
        .order_by(on_their_way, PublicationRow.created_at, PublicationRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if picked is None:
        return None
    row = session.scalars(
        update(PublicationRow)
        .where(PublicationRow.id == picked)
        .values(
            status="running",
            attempt=PublicationRow.attempt + 1,
            started_at=func.coalesce(PublicationRow.started_at, func.clock_timestamp()),
            lease_expires_at=seconds_from_now(lease_seconds),
            files_done=0,
            bytes_done=0,
        )
        .returning(PublicationRow)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one()
    assert row.credentials is not None, "an open publication has its credentials"
    return ClaimedPublication(
        id=row.id,
        attempt=row.attempt,
        job_id=row.job_id,
        job_attempt=row.job_attempt,
        place=row.place,
        document=row.destination,
        credentials=row.credentials,
        files=_files(session, row.job_id, row.job_attempt),
    )


def _is_lost() -> ColumnElement[bool]:
    return PublicationRow.lease_expires_at <= func.clock_timestamp()


def _files(session: Session, job_id: str, attempt: int) -> list[PublishedFile]:
    rows = session.scalars(
        select(ArtifactFileRow)
        .where(ArtifactFileRow.job_id == job_id, ArtifactFileRow.attempt == attempt)
        .order_by(ArtifactFileRow.path)
    )
    return [PublishedFile(row.path, row.bytes, row.sha256) for row in rows]


def renew(
    session: Session, claimed: ClaimedPublication, *, lease_seconds: float, files_done: int, bytes_done: int
) -> bool:
    """Renew the lease of a publication and record its progress; False where another attempt holds it."""
    return _write(
        session,
        claimed,
        lease_expires_at=seconds_from_now(lease_seconds),
        files_done=files_done,
        bytes_done=bytes_done,
    )


def succeed(session: Session, claimed: ClaimedPublication, result: Mapping[str, Any]) -> bool:
    """Record success and erase the credentials. False where another attempt holds the publication."""
    return _end(
        session,
        claimed,
        "succeeded",
        {"url": result["url"], "commit": result["commit"]},
        result=dict(result),
        error=None,
        files_done=PublicationRow.files,
        bytes_done=PublicationRow.bytes,
    )


def fail(session: Session, claimed: ClaimedPublication, problem: Mapping[str, Any], *, delay_seconds: float) -> bool:
    """Record a failed attempt: queue the publication again, or end it as failed with its credentials erased.

    It is queued again, with a growing delay, if another attempt could end differently. False where another attempt
    holds the publication.
    """
    error = dict(problem)
    if error["retryable"] and claimed.attempt < MOST_ATTEMPTS:
        delay = min(delay_seconds * 2 ** (claimed.attempt - 1), _LONGEST_DELAY_SECONDS)
        return _write(
            session,
            claimed,
            status="queued",
            error=error,
            available_at=seconds_from_now(delay),
            lease_expires_at=None,
        )
    return _end(session, claimed, "failed", {"error": error["code"]}, error=error | {"retryable": False})


def expire(session: Session) -> int:
    """End publications that are past their time limit, or whose attempts all lost their dispatcher.

    Returns their number.
    """
    too_often = and_(PublicationRow.status == "running", PublicationRow.attempt >= MOST_ATTEMPTS, _is_lost())
    ids = session.scalars(
        select(PublicationRow.id)
        .where(
            PublicationRow.status.in_(OPEN),
            or_(PublicationRow.expires_at <= func.clock_timestamp(), too_often),
        )
        .limit(100)
        .with_for_update(skip_locked=True)
    ).all()
    problem = PublicationExpired(
        "the artifact did not arrive in the time a publication has: publish it again"
    ).problem()
    ended = session.execute(
        update(PublicationRow)
        .where(PublicationRow.id.in_(ids))
        .values(**_over("failed"), error=problem)
        .returning(PublicationRow.id, PublicationRow.team_id)
        .execution_options(synchronize_session=False)
    ).all()
    for row in ended:
        audit.note(
            session, Automation(row.team_id, "dispatcher"), ACTIONS["failed"], row.id, {"error": problem["code"]}
        )
    return len(ended)


def cancel(session: Session, publication_id: str) -> bool:
    """End an unfinished publication; the dispatcher that sends it notices within a second or two."""
    cancelled = session.scalar(
        update(PublicationRow)
        .where(PublicationRow.id == publication_id, PublicationRow.status.in_(OPEN))
        .values(**_over("cancelled"))
        .returning(PublicationRow.id)
        .execution_options(synchronize_session=False)
    )
    return cancelled is not None


def _over(status: PublicationStatus) -> dict[str, Any]:
    return {
        "status": status,
        "credentials": None,
        "lease_expires_at": None,
        "finished_at": func.clock_timestamp(),
    }


def _end(
    session: Session, claimed: ClaimedPublication, status: PublicationStatus, details: Mapping[str, Any], **values: Any
) -> bool:
    if not _write(session, claimed, **_over(status), **values):
        return False
    team_id = session.scalars(select(PublicationRow.team_id).where(PublicationRow.id == claimed.id)).one()
    audit.note(
        session,
        Automation(team_id, "dispatcher"),
        ACTIONS[status],
        claimed.id,
        {"job": claimed.job_id, "to": claimed.to, **details},
    )
    return True


def _write(session: Session, claimed: ClaimedPublication, **values: Any) -> bool:
    written = session.scalar(
        update(PublicationRow)
        .where(
            PublicationRow.id == claimed.id,
            PublicationRow.status == "running",
            PublicationRow.attempt == claimed.attempt,
        )
        .values(**values)
        .returning(PublicationRow.id)
        .execution_options(synchronize_session=False)
    )
    return written is not None
