"""Tables of the dispatcher's duties: when each last ran, and the rows that fail."""

from datetime import datetime

from sqlalchemy import BigInteger, PrimaryKeyConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class DutyRow(Base):
    """Periodic duty of the dispatcher: its interval, and the time when a dispatcher last completed it.

    Before the first success it is the time of the first try.
    """

    __tablename__ = "duties"

    name: Mapped[str] = mapped_column(primary_key=True)
    every_seconds: Mapped[float]
    succeeded_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class RowFailureRow(Base):
    """Row of a duty that failed when it was last tried; it is skipped until `retry_at`.

    `failures` counts consecutive failures without temporary ones; `error` is the last error, temporary or not.
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
    """Numbers of failed and of parked rows of a duty since the service began."""

    __tablename__ = "row_failure_totals"

    duty: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    parked: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
