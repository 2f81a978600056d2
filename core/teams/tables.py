"""Tables of teams and API keys."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class TeamRow(Base):
    """A team. `running` counts its jobs that a worker holds (running or cancelling); `max_running` bounds it."""

    __tablename__ = "teams"
    __table_args__ = (CheckConstraint("running >= 0", name="running_not_negative"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    running: Mapped[int] = mapped_column(server_default=text("0"))
    max_running: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class ApiKeyRow(Base):
    """An API key. Only `prefix` and the HMAC `digest` of the whole token are kept."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("role IN ('viewer', 'member', 'admin')", name="role"),
        Index(None, "team_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    name: Mapped[str]
    role: Mapped[str]
    prefix: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
