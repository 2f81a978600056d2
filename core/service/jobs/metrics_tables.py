"""Tables that metrics are read from: totals of attempts and of their stages."""

from sqlalchemy import BigInteger, Double, PrimaryKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class AttemptTotalRow(Base):
    """Number of attempts with one outcome, and the seconds they took together, since the service began.

    `core.service.jobs.fleet` adds each ended attempt once. So these totals only grow, even when the attempts' own rows
    are removed. `error_code` is empty where there was no error.
    """

    __tablename__ = "attempt_totals"
    __table_args__ = (PrimaryKeyConstraint("queue", "method", "outcome", "error_code"),)

    queue: Mapped[str]
    method: Mapped[str]
    outcome: Mapped[str]
    error_code: Mapped[str]
    attempts: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float] = mapped_column(Double)


class StageTotalRow(Base):
    """A histogram of the seconds that attempts spent in a stage, by outcome. `at_most` is a bucket's upper bound."""

    __tablename__ = "stage_totals"
    __table_args__ = (PrimaryKeyConstraint("stage", "outcome", "at_most"),)

    stage: Mapped[str]
    outcome: Mapped[str]
    at_most: Mapped[float] = mapped_column(Double)
    attempts: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float] = mapped_column(Double)
