"""Webhooks and their deliveries."""

from datetime import datetime
from typing import Annotated, Literal

from secateur_wire.base import JsonObject, OneOf, WireModel

WebhookType = Literal[
    "job.queued",
    "job.running",
    "job.cancelling",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "sweep.succeeded",
    "sweep.failed",
    "sweep.cancelled",
    "webhook.ping",
]
DeliveryState = Literal["pending", "delivered", "failed"]


class Webhook(WireModel):
    """An endpoint.

    `disabled_reason` says why it is disabled. `failing_since` is the time of the first failure after the last success.
    `pending` and `failed` count deliveries, up to 1,000 of each.
    """

    id: str
    object: Literal["webhook"] = "webhook"
    url: str
    description: str
    types: list[Annotated[str, OneOf(WebhookType)]]
    metadata: dict[str, str]
    enabled: bool
    disabled_reason: str | None
    disabled_at: datetime | None
    failing_since: datetime | None
    pending: int
    failed: int
    created_at: datetime


class CreatedWebhook(Webhook):
    """A new endpoint, or one with a new secret; only this answer has its `secret`."""

    secret: str


class Delivery(WireModel):
    """One event for one endpoint.

    `id` is the webhook-id that the receiver gets. `attempts` is the number of attempts. `next_attempt_at` is null once
    the delivery has succeeded or was given up. `last_error` is the reason of the last failure.
    """

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    webhook_id: str
    event_id: str
    type: Annotated[str, OneOf(WebhookType)]
    subject: str
    state: Annotated[str, OneOf(DeliveryState)]
    attempts: int
    last_status: int | None
    last_error: str | None
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None


class DeliveryAttempt(WireModel):
    """One attempt: an answer's status and the beginning of its body, or an error."""

    attempt: int
    started_at: datetime
    milliseconds: int
    status: int | None
    error: str | None
    response: str | None


class DeliveryDetail(Delivery):
    """A delivery with its payload and its newest attempts, newest first.

    An attempt cut off by a crash leaves no entry.
    """

    payload: JsonObject
    log: list[DeliveryAttempt]


class Replayed(WireModel):
    """Number of deliveries that are sent again."""

    object: Literal["replay"] = "replay"
    deliveries: int
