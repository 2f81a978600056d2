"""Tables of the dispatcher's duties: when each was last done, and the rows that fail."""

from datetime import datetime

from sqlalchemy import BigInteger, PrimaryKeyConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class DutyRow(Base):
    """Periodic duty of the dispatcher: its interval, and when one of the dispatchers last did it.

    Before the first time, that is when it was first tried.
    """

    __tablename__ = "duties"

    name: Mapped[str] = mapped_column(primary_key=True)
    every_seconds: Mapped[float]
    succeeded_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class RowFailureRow(Base):
    """Row of a duty that failed when it was last tried; it is left alone until `retry_at`.

    `failures` counts those in a row, except for reasons that pass by themselves; `error` is the last of all.
    """

    __tablename__ = "row_failures"
    __table_args__ = (PrimaryKeyConstraint("duty", "row_id"),)

    duty: Mapped[str]
    row_id: Mapped[str]
    failures: Mapped[int]
    error: Mapped[str]
    failed_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    retry_at: Mapped[datetime]


class RowFailureTotalRow(Base):
    """Numbers of failures of a duty's rows, and of rows that were parked for them, since the service began."""

    __tablename__ = "row_failure_totals"

    duty: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    parked: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
