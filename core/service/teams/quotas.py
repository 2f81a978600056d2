"""Counts of a team's use of its quotas: running jobs, device time of the month, stored bytes.

Counts are columns of the team's row, and change in the transaction of the counted event. That row is always locked
last, so a transaction that holds it waits for nothing.
"""

from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Interval,
    case,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from core.service.teams.tables import TeamRow
from secateur_wire.errors import QuotaExceeded

ASK_AGAIN_SECONDS = 60
"""Retry-After where room depends on a job's start or a deletion, which cannot be predicted."""


def month_start() -> ColumnElement[datetime]:
    """Return the start of the current calendar month (UTC), by the database's clock."""
    return func.date_trunc("month", func.clock_timestamp(), "UTC", type_=DateTime(timezone=True))


def month_end() -> ColumnElement[datetime]:
    """Return the end of the current calendar month (UTC), by the database's clock."""
    month = literal_column("interval '1 month'", Interval)
    return func.timezone("UTC", func.timezone("UTC", month_start()) + month, type_=DateTime(timezone=True))


def device_seconds_used() -> ColumnElement[float]:
    """Return the device seconds of the current month: 0 where the row's count is from an earlier one."""
    return case((TeamRow.device_month == month_start(), TeamRow.device_seconds), else_=0.0)


def count_ended(session: Session, team_id: str, seconds: float) -> None:
    """Subtract a running job from the count, and add the device time that a worker spent on it."""
    session.execute(
        update(TeamRow)
        .where(TeamRow.id == team_id)
        .values(running=TeamRow.running - 1, device_seconds=device_seconds_used() + seconds, device_month=month_start())
        .execution_options(synchronize_session=False)
    )


def try_reserve_stored(session: Session, team_id: str, count: int) -> bool:
    """Reserve stored bytes if the quota has room for them; return whether it had."""
    reserved = session.scalar(
        update(TeamRow)
        .where(
            TeamRow.id == team_id,
            or_(TeamRow.max_stored_bytes.is_(None), TeamRow.stored_bytes + count <= TeamRow.max_stored_bytes),
        )
        .values(stored_bytes=TeamRow.stored_bytes + count)
        .returning(TeamRow.id)
        .execution_options(synchronize_session=False)
    )
    return reserved is not None


def reserve_stored(session: Session, team_id: str, count: int) -> None:
    """Reserve stored bytes; raises QuotaExceeded with the figures where the quota has no room for them."""
    if not try_reserve_stored(session, team_id, count):
        raise QuotaExceeded(stored_bytes_missing(session, team_id, count), retry_after=ASK_AGAIN_SECONDS)


def stored_bytes_missing(session: Session, team_id: str, count: int) -> str:
    """Return a message that so many bytes do not fit into the quota."""
    team = session.execute(select(TeamRow.stored_bytes, TeamRow.max_stored_bytes).where(TeamRow.id == team_id)).one()
    return (
        f"{count} bytes more do not fit: the team stores {team.stored_bytes} of {team.max_stored_bytes} bytes; "
        "delete artifacts, models or datasets first"
    )


def release_stored(session: Session, team_id: str, count: int) -> None:
    """Release stored bytes; the count never falls below zero."""
    session.execute(
        update(TeamRow)
        .where(TeamRow.id == team_id)
        .values(stored_bytes=func.greatest(TeamRow.stored_bytes - count, 0))
        .execution_options(synchronize_session=False)
    )
