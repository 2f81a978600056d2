"""Tables of discoveries, of their totals, and of the library versions that workers have."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    Double,
    ForeignKey,
    Index,
    PrimaryKeyConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from core.database import SMALL_FACTS, Base, any_of
from core.service.discoveries.states import OPEN, STATES

DISCOVERY_FAILED = "state = 'failed' AND (error ->> 'code'::text) = 'discovery_failed'::text"
"""Condition of the index of discoveries that failed for an unknown reason."""
_IS_OPEN = f"state IN ({any_of(OPEN)})"


class DiscoveryRow(Base):
    """A discovery. `id` is a hash of the content of the model and of the versions of the library and of the discovery.

    `content` is the input of the child, packed as in `UndiscoveredModel`; it is kept until the discovery ends.
    `description` is the resulting `ModelDescription`, which contains the architecture, and `facts` are its small parts.
    `team_id` is the team that asked first, `attempts` the number of workers that took the discovery. `used_at` is
    updated about once a day.
    """

    __tablename__ = "discoveries"
    __table_args__ = (
        CheckConstraint(f"state IN ({any_of(STATES)})", name="state"),
        CheckConstraint("(state = 'running') = (lease_expires_at IS NOT NULL)", name="lease_while_running"),
        CheckConstraint("(state = 'found') = (description IS NOT NULL)", name="description_if_found"),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="error_if_failed"),
        Index("ix_discoveries_open", "transformers_version", "created_at", "id", postgresql_where=text(_IS_OPEN)),
        Index("ix_discoveries_open_of_team", "team_id", postgresql_where=text(_IS_OPEN)),
        Index(None, "used_at"),
        Index("ix_discoveries_failed", "finished_at", postgresql_where=text(DISCOVERY_FAILED)),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    architecture: Mapped[str]
    transformers_version: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="waiting")
    content: Mapped[str | None] = mapped_column(deferred=True)
    description: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    facts: Mapped[dict[str, Any] | None] = mapped_column(Computed(SMALL_FACTS))
    error: Mapped[dict[str, Any] | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    worker_id: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    used_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class DiscoveryTeamRow(Base):
    """A team that asked for a discovery and may read its state."""

    __tablename__ = "discovery_teams"
    __table_args__ = (PrimaryKeyConstraint("discovery_id", "team_id"),)

    discovery_id: Mapped[str] = mapped_column(ForeignKey("discoveries.id", ondelete="CASCADE"))
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))


class DiscoveryTotalRow(Base):
    """Number of discoveries with one outcome, and their total seconds; `error_code` is empty for successful ones."""

    __tablename__ = "discovery_totals"

    error_code: Mapped[str] = mapped_column(primary_key=True)
    discoveries: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float] = mapped_column(Double)


class LibraryVersionRow(Base):
    """A version of transformers on workers of a queue, and the time when one of them last reported it."""

    __tablename__ = "library_versions"
    __table_args__ = (PrimaryKeyConstraint("queue", "transformers_version"),)

    queue: Mapped[str]
    transformers_version: Mapped[str]
    seen_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
