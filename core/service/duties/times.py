"""Times of the dispatcher's duties, recorded so that operators notice a duty that no longer runs.

They are in the database, not in a dispatcher's memory: any dispatcher may run a duty, and where none is running the
times must still grow old.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.service.duties.tables import DutyRow, RowFailureTotalRow


def note_tried(session: Session, name: str, every_seconds: float) -> None:
    """Record that this duty exists, so that one that never succeeds is noticed too."""
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
    """Return the numbers of failed and of parked rows by duty; duties without failures are left out."""
    return session.scalars(select(RowFailureTotalRow).order_by(RowFailureTotalRow.duty)).all()


def known_duties(session: Session) -> Sequence[DutyRow]:
    return session.scalars(select(DutyRow).order_by(DutyRow.name)).all()
