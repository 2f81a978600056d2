"""History of a trigger: every firing, with its result."""

from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import delete, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import new_id, seconds_from_statement
from core.pagination import Listing, read_page
from core.service.triggers.schemas import Firing
from core.service.triggers.tables import FiringRow, TriggerRow
from secateur_wire.base import Page
from secateur_wire.errors import SecateurError
from secateur_wire.triggers import FiringOutcome, FiringSource

KEPT_BYTES = 64 * 1024
"""Longest payload that is stored."""
_RETENTION_BATCH = 1000


@dataclass
class FiringAttempt:
    """Facts of a firing, from which its history entry is written for any result."""

    trigger: TriggerRow
    source: FiringSource
    actor: str | None = None
    event_id: str | None = None
    payload: Any = None
    payload_bytes: int = 0
    note: str | None = None


def claim_event(session: Session, attempt: FiringAttempt) -> str | None:
    """Record the firing as accepted; return its id, or None where the event has created a job before.

    Of several firings with one event at once, the first goes on, and the others wait here for its commit or rollback.
    """
    return session.scalar(
        insert(FiringRow)
        .values(_values(attempt, "accepted"))
        .on_conflict_do_nothing(
            index_elements=["trigger_id", "source", "event_id"], index_where=text("outcome = 'accepted'")
        )
        .returning(FiringRow.id)
    )


def accepted(session: Session, firing_id: str, job_id: str) -> Firing:
    """Record the job that the firing created."""
    session.execute(
        update(FiringRow)
        .where(FiringRow.id == firing_id)
        .values(job_id=job_id)
        .execution_options(synchronize_session=False)
    )
    return firing_answer(session.scalars(select(FiringRow).where(FiringRow.id == firing_id)).one())


def job_of_event(session: Session, attempt: FiringAttempt) -> str | None:
    """Return the job that the event created."""
    job_id: str | None = session.scalar(
        select(FiringRow.job_id).where(
            FiringRow.trigger_id == attempt.trigger.id,
            FiringRow.source == attempt.source,
            FiringRow.event_id == attempt.event_id,
            FiringRow.outcome == "accepted",
        )
    )
    return job_id


def write(
    session: Session,
    attempt: FiringAttempt,
    outcome: FiringOutcome,
    *,
    job_id: str | None = None,
    error: SecateurError | None = None,
) -> Firing:
    """Record a firing that creates no job."""
    values = _values(attempt, outcome) | {"job_id": job_id, "error": None if error is None else error.problem()}
    return firing_answer(session.scalars(insert(FiringRow).values(values).returning(FiringRow)).one())


def list_firings(session: Session, trigger_id: str, *, limit: int, after: str | None) -> Page[Firing]:
    """Return a trigger's history, newest first."""
    query = select(FiringRow).where(FiringRow.trigger_id == trigger_id)
    return read_page(session, Listing(query, FiringRow, firing_answer), limit=limit, after=after)


def remove_old_firings(session: Session, retention_days: float) -> int:
    """Remove a batch of older firings; return their number. Callers repeat this until nothing is left."""
    old = (
        select(FiringRow.id)
        .where(FiringRow.created_at < seconds_from_statement(-retention_days * 24 * 3600))
        .order_by(FiringRow.created_at)
        .limit(_RETENTION_BATCH)
        .with_for_update(skip_locked=True)
        .cte("old")  # Picked once: PostgreSQL may run a subquery again for each row, and its limit then has no effect.
    )
    removed = session.scalars(
        delete(FiringRow)
        .where(FiringRow.id.in_(select(old.c.id)))
        .returning(FiringRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(removed.all())


def _values(attempt: FiringAttempt, outcome: FiringOutcome) -> dict[str, Any]:
    context = structlog.contextvars.get_contextvars()
    return {
        "id": new_id("firing"),
        "trigger_id": attempt.trigger.id,
        "source": attempt.source,
        "outcome": outcome,
        "event_id": attempt.event_id,
        "note": attempt.note,
        "payload": attempt.payload if attempt.payload_bytes <= KEPT_BYTES else None,
        "payload_bytes": attempt.payload_bytes,
        "actor": attempt.actor,
        "address": context.get("address"),
        "request_id": context.get("request_id"),
    }


def firing_answer(row: FiringRow) -> Firing:
    names = Firing.model_fields.keys() - {"object"}
    return Firing.model_validate({name: getattr(row, name) for name in names}, extra="ignore")
