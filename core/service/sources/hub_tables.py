"""The tables of the hub: what was found there, and the tokens it is asked with."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class HubRevisionRow(Base):
    """A model repository at one commit, which never changes: a cache, any row of which may be removed.

    `reader` is `public`, or else the one team that may be told. `description` is a `ModelDescription`, `files` the
    files to fetch by path. `team_id` asked for it first; `used_at` is when somebody last did, to the hour.
    """

    __tablename__ = "hub_revisions"
    __table_args__ = (Index(None, "used_at"), Index(None, "team_id", "used_at"))

    reader: Mapped[str] = mapped_column(primary_key=True, server_default="")
    repository: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[str] = mapped_column(primary_key=True)
    description: Mapped[dict[str, Any]]
    files: Mapped[dict[str, Any]]
    team_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    used_at: Mapped[datetime] = mapped_column(server_default=func.now())


class HubTokenRow(Base):
    """A team's own token of the hub, sealed."""

    __tablename__ = "hub_tokens"

    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"), primary_key=True)
    sealed: Mapped[bytes]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
