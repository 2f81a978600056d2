"""Tables of webhook endpoints, their secrets, events, deliveries and attempts."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    PrimaryKeyConstraint,
    String,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class WebhookRow(Base):
    """Endpoint of a team. `types` null: every event; `labels` null: any metadata.

    `disabled_reason` says why it is disabled; `failing_since` is its first failure after its last success.
    """

    __tablename__ = "webhooks"
    __table_args__ = (
        CheckConstraint("enabled = (disabled_reason IS NULL)", name="reason_while_disabled"),
        Index("ix_webhooks_disabled", "disabled_at", postgresql_where=text("NOT enabled")),
        Index(None, "team_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    url: Mapped[str]
    description: Mapped[str]
    types: Mapped[list[str] | None] = mapped_column(ARRAY(String()))
    labels: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    disabled_reason: Mapped[str | None]
    disabled_at: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class WebhookSecretRow(Base):
    """A secret that signs an endpoint's deliveries, encrypted. `expires_at` is null for the newest."""

    __tablename__ = "webhook_secrets"
    __table_args__ = (Index(None, "webhook_id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    sealed: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime | None]


class WebhookEventRow(Base):
    """Event as it is sent: `payload` is the body of each of its deliveries, byte for byte."""

    __tablename__ = "webhook_events"
    __table_args__ = (Index(None, "created_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    type: Mapped[str]
    payload: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class WebhookDeliveryRow(Base):
    """One event for one endpoint. `number` is the order of events; it is assigned while the subject's row is locked.

    `attempt` fences: the report of an attempt that lost its lease matches no row. `failures` counts since the delivery
    was created or last replayed. A delivery stays pending while it is being sent.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state"),
        CheckConstraint("(state = 'pending') = (finished_at IS NULL)", name="finished_unless_pending"),
        Index(None, "webhook_id", "created_at", "id"),
        Index("ix_webhook_deliveries_by_state", "webhook_id", "state", "created_at", "id"),
        Index("ix_webhook_deliveries_by_type", "webhook_id", "type", "created_at", "id"),
        Index(None, "event_id"),
        Index(
            "ix_webhook_deliveries_due",
            "webhook_id",
            "next_attempt_at",
            "number",
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_webhook_deliveries_in_order",
            "webhook_id",
            "subject",
            "number",
            postgresql_where=text("state = 'pending'"),
        ),
        Index("ix_webhook_deliveries_kept", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event_id: Mapped[str] = mapped_column(ForeignKey("webhook_events.id"))
    type: Mapped[str]
    subject: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="pending")
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    lease_expires_at: Mapped[datetime | None]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    finished_at: Mapped[datetime | None]


class WebhookAttemptRow(Base):
    """One attempt at a delivery, written when it has ended: an answer's status, or an error.

    `response` is the beginning of the answer's body.
    """

    __tablename__ = "webhook_attempts"
    __table_args__ = (PrimaryKeyConstraint("delivery_id", "attempt"),)

    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_deliveries.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    started_at: Mapped[datetime]
    milliseconds: Mapped[int]
    status: Mapped[int | None]
    error: Mapped[str | None]
    response: Mapped[str | None]
