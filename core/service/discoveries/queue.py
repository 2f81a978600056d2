"""Queue of discoveries: a worker takes one under a lease, and writes the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from core.database import seconds_from_now, seconds_from_statement
from core.engine.architectures.description import ModelDescription, UndiscoveredModel, stored_description
from core.service.discoveries.states import OPEN
from core.service.discoveries.tables import DISCOVERY_FAILED, DiscoveryRow, DiscoveryTotalRow
from core.service.teams import audit
from core.service.teams.principal import Automation
from secateur_wire.errors import DiscoveryFailed
from secateur_wire.problems import StoredProblem, summary_of_problem

_FAILED_SECONDS = 3600.0
"""A discovery whose child ended without an answer is forgotten after this time: the machine may have been the cause."""
_NEVER_TAKEN_SECONDS = 24 * 3600.0
_BATCH = 200


@dataclass(frozen=True)
class ClaimedDiscovery:
    """Discovery that a worker has taken; `attempt` goes with every later write."""

    id: str
    attempt: int
    worker_id: str
    model: UndiscoveredModel


def claim(
    session: Session, *, worker_id: str, transformers_version: str, lease_seconds: float, most_attempts: int
) -> ClaimedDiscovery | None:
    """Take the next discovery for this version of the library, each team in turn; None where none is waiting.

    A discovery whose worker stopped renewing is queued again. It fails where that happened too often, or where its row
    cannot be read.
    """
    others = aliased(DiscoveryRow)
    before_it = (
        select(func.count())
        .where(
            others.team_id == DiscoveryRow.team_id,
            others.state.in_(OPEN),
            others.created_at < DiscoveryRow.created_at,
        )
        .scalar_subquery()
    )
    row = session.scalars(
        select(DiscoveryRow)
        .where(
            DiscoveryRow.transformers_version == transformers_version,
            or_(DiscoveryRow.state == "waiting", and_(DiscoveryRow.state == "running", _is_lost())),
        )
        .order_by(before_it, DiscoveryRow.created_at, DiscoveryRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        return None
    if row.attempts >= most_attempts:
        lost = DiscoveryFailed(f"{row.attempts} workers that looked at the model ended before they had an answer")
        _give_up(session, row.id, row.attempts, lost, worker_id)
        return None
    attempt = row.attempts + 1
    row.state, row.attempts, row.worker_id = "running", attempt, worker_id
    row.started_at, row.lease_expires_at = func.clock_timestamp(), seconds_from_now(lease_seconds)
    session.flush()
    try:
        return ClaimedDiscovery(row.id, attempt, worker_id, _model_of(row))
    except ValueError:
        unreadable = DiscoveryFailed("what is kept of the model cannot be read")
        _give_up(session, row.id, attempt, unreadable, worker_id)
        return None


def renew(session: Session, claimed: ClaimedDiscovery, lease_seconds: float) -> bool:
    """Renew the lease of a discovery; False where another attempt holds it."""
    return _write(session, claimed.id, claimed.attempt, {"lease_expires_at": seconds_from_now(lease_seconds)})


def release(session: Session, claimed: ClaimedDiscovery) -> None:
    """Return a discovery to the queue. This attempt does not count."""
    _write(session, claimed.id, claimed.attempt, _waiting() | {"attempts": claimed.attempt - 1})


def succeed(session: Session, claimed: ClaimedDiscovery, description: ModelDescription) -> bool:
    """Store the result of a discovery; False where another attempt holds it.

    Raises UnusableModel for a description that is too large.
    """
    values = {"state": "found", "description": stored_description(description)}
    return _end(session, claimed.id, claimed.attempt, values, claimed.worker_id)


def fail(session: Session, claimed: ClaimedDiscovery, problem: StoredProblem, *, most_attempts: int) -> bool:
    """Store the error of a discovery. One without an answer is tried again, up to `most_attempts` times.

    False where another attempt holds the discovery.
    """
    if problem["code"] == DiscoveryFailed.code and claimed.attempt < most_attempts:
        return _write(session, claimed.id, claimed.attempt, _waiting())
    values = {"state": "failed", "error": summary_of_problem(problem)}
    return _end(session, claimed.id, claimed.attempt, values, claimed.worker_id)


def forget_old(session: Session, keep_days: float) -> int:
    """Remove a batch of discoveries that are long unused, or that failed for an unknown reason; return their number."""
    unused = and_(
        DiscoveryRow.state.in_(("found", "failed")),
        DiscoveryRow.used_at < seconds_from_statement(-keep_days * 86400),
    )
    failed = and_(
        text(DISCOVERY_FAILED),
        DiscoveryRow.finished_at < seconds_from_statement(-_FAILED_SECONDS),
    )
    never_taken = and_(
        DiscoveryRow.state == "waiting",
        DiscoveryRow.created_at < seconds_from_statement(-_NEVER_TAKEN_SECONDS),
    )
    old = [
        row_id
        # Two statements, because each condition has an index of its own.
        for condition in (unused, failed, never_taken)
        for row_id in session.scalars(
            select(DiscoveryRow.id).where(condition).limit(_BATCH).with_for_update(skip_locked=True)
        )
    ]
    removed = session.scalars(
        delete(DiscoveryRow)
        .where(DiscoveryRow.id.in_(old))
        .returning(DiscoveryRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(removed.all())


def _is_lost() -> ColumnElement[bool]:
    return DiscoveryRow.lease_expires_at <= func.clock_timestamp()


def _waiting() -> dict[str, Any]:
    return {"state": "waiting", "worker_id": None, "lease_expires_at": None}


def _model_of(row: DiscoveryRow) -> UndiscoveredModel:
    """Return the model of a discovery without its facts, which are not stored."""
    unknown = {"family": "", "parameters": 0, "bytes": 0, "dtype": "", "digest": ""}
    model = UndiscoveredModel.model_validate(unknown | {"architecture": row.architecture, "content": row.content})
    assert model.tensors is not None, "unpacked, or ValueError"
    return model


def _give_up(session: Session, discovery_id: str, attempt: int, error: DiscoveryFailed, worker_id: str) -> None:
    values = {"state": "failed", "error": summary_of_problem(error.problem())}
    _end(session, discovery_id, attempt, values, worker_id)


def _end(session: Session, discovery_id: str, attempt: int, values: Mapping[str, Any], worker_id: str) -> bool:
    over = {"lease_expires_at": None, "finished_at": func.clock_timestamp(), "content": None}
    if not _write(session, discovery_id, attempt, {**values, **over}):
        return False
    row = session.execute(
        select(
            DiscoveryRow.team_id,
            DiscoveryRow.architecture,
            func.extract("epoch", DiscoveryRow.finished_at - DiscoveryRow.started_at).label("seconds"),
        ).where(DiscoveryRow.id == discovery_id)
    ).one()
    error_code = values.get("error", {}).get("code", "")
    total = insert(DiscoveryTotalRow).values(error_code=error_code, discoveries=1, seconds=row.seconds)
    session.execute(
        total.on_conflict_do_update(
            index_elements=["error_code"],
            set_={
                "discoveries": DiscoveryTotalRow.discoveries + 1,
                "seconds": DiscoveryTotalRow.seconds + total.excluded.seconds,
            },
        )
    )
    details = {"architecture": row.architecture} | ({"error": error_code} if error_code else {})
    action = "discovery.fail" if error_code else "discovery.find"
    audit.note(session, Automation(row.team_id, f"worker:{worker_id}"), action, discovery_id, details)
    return True


def _write(session: Session, discovery_id: str, attempt: int, values: Mapping[str, Any]) -> bool:
    written = session.scalar(
        update(DiscoveryRow)
        .where(DiscoveryRow.id == discovery_id, DiscoveryRow.state == "running", DiscoveryRow.attempts == attempt)
        .values(**values)
        .returning(DiscoveryRow.id)
        .execution_options(synchronize_session=False)
    )
    return written is not None


def open_discoveries(session: Session) -> Mapping[str, int]:
    """Return the number of unfinished discoveries by state."""
    counted = select(DiscoveryRow.state, func.count()).where(DiscoveryRow.state.in_(OPEN)).group_by(DiscoveryRow.state)
    return dict.fromkeys(OPEN, 0) | dict(iter(session.execute(counted)))


def discovery_totals(session: Session) -> Sequence[DiscoveryTotalRow]:
    return session.scalars(select(DiscoveryTotalRow).order_by(DiscoveryTotalRow.error_code)).all()
