"""Answers of the server about webhooks."""

from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from secateur.types import Answer

DeliveryState = Literal["pending", "delivered", "failed"]


class Webhook(Answer):
    """Address that is told of events.

    `types` empty: every event; `disabled_reason` says why it is told nothing, `failing_since` when the failures began
    that no success has ended.
    """

    id: str
    url: str
    description: str
    types: list[str]
    metadata: dict[str, str]
    enabled: bool
    disabled_reason: str | None
    disabled_at: datetime | None
    failing_since: datetime | None
    pending: int
    failed: int
    created_at: datetime


class CreatedWebhook(Webhook):
    """A new webhook, or one with a new secret: `secret` is shown this once."""

    secret: str


class Delivery(Answer):
    """One event for one webhook; `id` is what the receiver sees as webhook-id."""

    id: str
    webhook_id: str
    event_id: str
    type: str
    subject: str
    state: str
    attempts: int
    last_status: int | None
    last_error: str | None
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None


class DeliveryAttempt(Answer):
    """One attempt: an answer's status and the beginning of its body, or an error."""

    attempt: int
    started_at: datetime
    milliseconds: int
    status: int | None
    error: str | None
    response: str | None


class DeliveryDetail(Delivery):
    """A delivery with what is sent, and its newest attempts, newest first."""

    payload: dict[str, JsonValue]
    log: list[DeliveryAttempt]


class Replayed(Answer):
    """Number of deliveries that begin again."""

    deliveries: int
