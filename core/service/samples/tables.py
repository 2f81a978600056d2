"""Table of requests for the samples."""

from datetime import datetime
from typing import Any, get_args

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base, any_of
from secateur_wire.states import SampleState

STATES: tuple[SampleState, ...] = get_args(SampleState)
OPEN: tuple[SampleState, ...] = ("waiting", "running")
REQUEST_IS_OPEN = f"state IN ({any_of(OPEN)})"
"""Condition of the index of unfinished requests; a conflict is found by it only for this text, without parameters."""


class SampleRequestRow(Base):
    """A request for the samples. A team has at most one unfinished request.

    `goal` is the goal of the job that follows; None where the samples are only registered. `attempts` counts the
    workers that took it, and `step` is the last step.
    """

    __tablename__ = "sample_requests"
    __table_args__ = (
        CheckConstraint(f"state IN ({any_of(STATES)})", name="state"),
        CheckConstraint("(state = 'running') = (lease_expires_at IS NOT NULL)", name="lease_while_running"),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="error_if_failed"),
        Index("ix_sample_requests_open", "team_id", unique=True, postgresql_where=text(REQUEST_IS_OPEN)),
        Index(None, "team_id", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    state: Mapped[str] = mapped_column(server_default="waiting")
    goal: Mapped[str | None]
    step: Mapped[str | None]
    job_id: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    worker_id: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
