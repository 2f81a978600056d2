"""Traces of registered image classifiers: a worker takes a due one, and stores the result with the model.

Nothing waits for a trace: without one, estimates use a formula.
"""

from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError
from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from core.database import seconds_from_now
from core.engine.architectures.classifier_passes import ClassifierPasses
from core.service.registry.tables import ModelRow
from core.service.sources.references import FileReference

MOST_ATTEMPTS = 3
_AGAIN_SECONDS = 600.0
"""A failed trace is tried again after this time: the cause may have been the machine, or a folder that it lacks."""


@dataclass(frozen=True)
class ClaimedTrace:
    """Classifier that a worker has taken to trace: a folder of its machine, or files below a prefix of the store."""

    model_id: str
    name: str
    attempt: int
    path: str | None
    prefix: str | None
    files: tuple[FileReference, ...]


def claim_trace(session: Session, *, lease_seconds: float) -> ClaimedTrace | None:
    """Take the classifier whose trace has been due longest; None where none is due.

    It is due again after the lease, unless its result is stored by then.
    """
    row = session.scalars(
        select(ModelRow)
        .where(ModelRow.trace_due_at <= func.clock_timestamp())
        .order_by(ModelRow.trace_due_at)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
    ).one_or_none()
    if row is None:
        return None
    try:
        files = tuple(FileReference.model_validate(file) for file in row.files or ())
    except (ValidationError, TypeError):
        row.trace_due_at = None  # It cannot be traced, and would block all others.
        return None
    claimed = ClaimedTrace(row.id, row.name, row.trace_attempts + 1, row.path, row.prefix, files)
    session.execute(
        update(ModelRow)
        .where(ModelRow.id == row.id)
        .values(trace_attempts=claimed.attempt, trace_due_at=_due_after(claimed.attempt, lease_seconds))
    )
    return claimed


def keep_trace(session: Session, claimed: ClaimedTrace, passes: ClassifierPasses) -> None:
    """Store the result with the model, if the model still exists."""
    row = session.get(ModelRow, claimed.model_id, with_for_update={"key_share": True})
    if row is not None:
        row.description = row.description | {"passes": passes.model_dump(mode="json")}
        row.trace_due_at = None


def put_off_trace(session: Session, claimed: ClaimedTrace) -> None:
    """Postpone a failed trace; after the last attempt it is never due again."""
    session.execute(
        update(ModelRow)
        .where(ModelRow.id == claimed.model_id, ModelRow.trace_attempts == claimed.attempt)
        .values(trace_due_at=_due_after(claimed.attempt, _AGAIN_SECONDS))
    )


def release_trace(session: Session, claimed: ClaimedTrace) -> None:
    """Return a trace to the queue. This attempt does not count."""
    session.execute(
        update(ModelRow)
        .where(ModelRow.id == claimed.model_id, ModelRow.trace_attempts == claimed.attempt)
        .values(trace_due_at=func.clock_timestamp(), trace_attempts=claimed.attempt - 1)
    )


def _due_after(attempt: int, seconds: float) -> ColumnElement[datetime] | None:
    return seconds_from_now(seconds) if attempt < MOST_ATTEMPTS else None
