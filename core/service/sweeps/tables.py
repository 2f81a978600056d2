"""Tables of sweeps and of their points."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, PrimaryKeyConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base, any_of
from core.service.sweeps.states import STAGES, SWEEP_STATUSES


class SweepRow(Base):
    """Sweep of a team. `request` is the body as it was sent.

    `model` and `model_revision` are the resolved model, and `pinned` its unambiguous name in job bodies; `baseline` has
    the measured figures of the dense model so far; `waiting_for` is the reason why no further job was started.
    """

    __tablename__ = "sweeps"
    __table_args__ = (
        CheckConstraint(f"status IN ({any_of(SWEEP_STATUSES)})", name="status"),
        Index("ix_sweeps_list", "team_id", "created_at", "id"),
        Index("ix_sweeps_list_by_status", "team_id", "status", "created_at", "id"),
        Index("ix_sweeps_running", "id", postgresql_where=text("status = 'running'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    status: Mapped[str] = mapped_column(server_default="running")
    name: Mapped[str | None]
    model: Mapped[str]
    model_revision: Mapped[str]
    pinned: Mapped[str]
    max_concurrent: Mapped[int]
    request: Mapped[dict[str, Any]]
    skipped: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'"))
    baseline: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    waiting_for: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    finished_at: Mapped[datetime | None]


class SweepPointRow(Base):
    """A point of a sweep, and its job once it was started.

    `point_values` are what it does not share with the sweep's request, and `pattern` its resolved pattern. `measures`
    names the evaluation, null without one: points with the same name share the dense model's figures. `again` asks to
    retry the ended job. `error` is the reason why a job could not be queued. `verifies` is, for a full evaluation in a
    search, the number of its probe.
    """

    __tablename__ = "sweep_points"
    __table_args__ = (
        PrimaryKeyConstraint("sweep_id", "number"),
        CheckConstraint(f"stage IN ({any_of(STAGES)})", name="stage"),
        Index(None, "job_id", unique=True),
    )

    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"))
    number: Mapped[int]
    stage: Mapped[str] = mapped_column(server_default="full")
    point_values: Mapped[dict[str, Any]]
    pattern: Mapped[str]
    measures: Mapped[str | None]
    verifies: Mapped[int | None]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    again: Mapped[bool] = mapped_column(server_default=text("false"))
    error: Mapped[dict[str, Any] | None]
