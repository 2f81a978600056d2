"""Tables of the hub: cached models, and the teams' tokens."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class HubRevisionRow(Base):
    """A model repository at one commit, which never changes: a cache, whose rows may be removed.

    `reader` is `public`, or the id of the only team that may read the row. `description` is a `ModelDescription`,
    `files` the files to fetch by path. `team_id` is the team that asked first; `used_at` is the time of the last use,
    to the hour.
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
    """A team's own token of the hub, encrypted."""

    __tablename__ = "hub_tokens"

    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"), primary_key=True)
    sealed: Mapped[bytes]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
