"""The table of publications."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base, any_of
from core.service.publications.states import OPEN, STATUSES

_IS_OPEN = f"status IN ({any_of(OPEN)})"


class PublicationRow(Base):
    """Publication of a job's artifact to a destination of its owner: the queue of record of publications.

    `place` is the address to which no other publication of the team may write meanwhile; `destination` is a
    `Destination`. `credentials` are encrypted, and always null once the publication has ended. `attempt` fences every
    write of the sending dispatcher; `job_attempt` is the attempt that made the artifact. `actor` is the caller.
    """

    __tablename__ = "publications"
    __table_args__ = (
        CheckConstraint(f"status IN ({any_of(STATUSES)})", name="status"),
        CheckConstraint(f"({_IS_OPEN}) = (credentials IS NOT NULL)", name="credentials_while_open"),
        CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name="lease_while_running"),
        Index("ix_publications_open", "team_id", "place", unique=True, postgresql_where=text(_IS_OPEN)),
        Index("ix_publications_due", "created_at", "id", postgresql_where=text(_IS_OPEN)),
        Index(None, "job_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    job_attempt: Mapped[int]
    actor: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="queued")
    place: Mapped[str]
    destination: Mapped[dict[str, Any]]
    credentials: Mapped[bytes | None]
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    files: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    files_done: Mapped[int] = mapped_column(server_default=text("0"))
    bytes_done: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    error: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    available_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    lease_expires_at: Mapped[datetime | None]
