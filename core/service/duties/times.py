"""Times of the dispatcher's duties, recorded so that one that is no longer done is noticed.

In the database and not in a dispatcher's own memory: it matters that a duty is done, not by which dispatcher, and where
none runs the times grow old all the same.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.service.duties.tables import DutyRow, RowFailureTotalRow


def note_tried(session: Session, name: str, every_seconds: float) -> None:
    """Note that there is this duty: one that never succeeds is to be noticed too."""
    new = insert(DutyRow).values(name=name, every_seconds=every_seconds)
    session.execute(
        new.on_conflict_do_update(index_elements=["name"], set_={"every_seconds": new.excluded.every_seconds})
    )


def note_done(session: Session, name: str, every_seconds: float) -> None:
    new = insert(DutyRow).values(name=name, every_seconds=every_seconds)
    done = {"every_seconds": new.excluded.every_seconds, "succeeded_at": func.clock_timestamp()}
    session.execute(new.on_conflict_do_update(index_elements=["name"], set_=done))


def forget_others(session: Session, names: Collection[str]) -> None:
    """Remove the duties that this version does not have."""
    session.execute(delete(DutyRow).where(DutyRow.name.not_in(names)))


def failed_rows(session: Session) -> Sequence[RowFailureTotalRow]:
    """Return how many rows of each duty failed and were parked, of duties of which some did."""
    return session.scalars(select(RowFailureTotalRow).order_by(RowFailureTotalRow.duty)).all()


def known_duties(session: Session) -> Sequence[DutyRow]:
    return session.scalars(select(DutyRow).order_by(DutyRow.name)).all()
