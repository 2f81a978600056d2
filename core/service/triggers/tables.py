"""Tables of triggers and of their firings."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class TriggerRow(Base):
    """A team's trigger.

    `template` and `placeholders` are as the team sent them; `event_id` is a JSON Pointer. Only HMACs of the URL's token
    and of the hub's secret are stored; `signing_secret` is encrypted. `next_fire_at` is set while the trigger is
    enabled and has a schedule. `failures` counts consecutive refused scheduled firings.
    """

    __tablename__ = "triggers"
    __table_args__ = (
        CheckConstraint("(cron IS NULL) = (timezone IS NULL)", name="schedule_whole"),
        CheckConstraint("(hub IS NULL) = (hub_digest IS NULL)", name="hub_with_secret"),
        UniqueConstraint("team_id", "name"),
        Index(None, "team_id", "created_at", "id"),
        Index("ix_triggers_due", "next_fire_at", postgresql_where=text("next_fire_at IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    name: Mapped[str]
    description: Mapped[str] = mapped_column(server_default=text("''"))
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    disabled_reason: Mapped[str | None]
    template: Mapped[dict[str, Any]]
    placeholders: Mapped[dict[str, Any]]
    event_id: Mapped[str | None]
    token_digest: Mapped[bytes] = mapped_column(unique=True)
    signing_secret: Mapped[bytes | None]
    hub: Mapped[dict[str, Any] | None]
    hub_digest: Mapped[bytes | None]
    cron: Mapped[str | None]
    timezone: Mapped[str | None]
    next_fire_at: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class FiringRow(Base):
    """Firing of a trigger, or a refused request to fire it.

    The unique index allows only one job for each event: the row of an accepted firing is written before its job, in the
    same transaction. `payload` is null if there was none, if it is too long to store, or if its sender was not
    authenticated. `actor` is `key:ID` or `person:ID`, or null for a request to the URL and for a schedule.
    """

    __tablename__ = "trigger_firings"
    __table_args__ = (
        CheckConstraint("source IN ('manual', 'url', 'hub', 'schedule')", name="source"),
        CheckConstraint("outcome IN ('accepted', 'duplicate', 'ignored', 'refused')", name="outcome"),
        Index(
            "uq_trigger_firings_event",
            "trigger_id",
            "source",
            "event_id",
            unique=True,
            postgresql_where=text("outcome = 'accepted'"),
        ),
        Index(None, "trigger_id", "created_at", "id"),
        Index(None, "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    trigger_id: Mapped[str] = mapped_column(ForeignKey("triggers.id", ondelete="CASCADE"))
    source: Mapped[str]
    outcome: Mapped[str]
    event_id: Mapped[str | None]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    error: Mapped[dict[str, Any] | None]
    note: Mapped[str | None]
    payload: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    payload_bytes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    actor: Mapped[str | None]
    address: Mapped[str | None]
    request_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
