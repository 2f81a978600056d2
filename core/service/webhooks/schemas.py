"""Webhooks and their deliveries as requests and answers show them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from core.http.address_policy import LONGEST_URL
from core.service.webhooks.events import WebhookType
from core.validation import LabelName, spelled

DeliveryState = Literal["pending", "delivered", "failed"]

MOST_WEBHOOKS = 50
"""Most endpoints of a team."""
LONGEST_GRACE_SECONDS = 30 * 24 * 3600

Url = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)]
_NO_NUL = (r"^[^\x00]*$", "text without NUL characters")
Description = Annotated[str, spelled(*_NO_NUL, max_length=300)]
Types = Annotated[list[WebhookType], Field(max_length=20)]
MetadataValue = Annotated[str, spelled(*_NO_NUL, max_length=500)]
Metadata = Annotated[dict[LabelName, MetadataValue], Field(max_length=20)]


class WebhookBody(BaseModel):
    """A new endpoint. `types` empty: told of every event; `metadata`: only of what has all of these values."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    description: Description = ""
    types: Types = []
    metadata: Metadata = {}


class WebhookChanges(BaseModel):
    """What of an endpoint changes; what is left out stays. `enabled: true` begins again with what waits."""

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    description: Description | None = None
    types: Types | None = None
    metadata: Metadata | None = None
    enabled: bool | None = None


class RotateSecretBody(BaseModel):
    """How long the old secret signs beside the new one."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    grace_seconds: Annotated[float, Field(ge=0, le=LONGEST_GRACE_SECONDS)] = 24 * 3600


class ReplayBody(BaseModel):
    """Since when."""

    model_config = ConfigDict(extra="forbid")

    since: AwareDatetime


class Webhook(BaseModel):
    """An endpoint. `disabled_reason` says why it is told nothing; `failing_since` when the failures began that no
    success has ended; `pending` and `failed` count deliveries.
    """

    id: str
    object: Literal["webhook"]
    url: str
    description: str
    types: list[WebhookType]
    metadata: dict[str, str]
    enabled: bool
    disabled_reason: str | None
    disabled_at: datetime | None
    failing_since: datetime | None
    pending: int
    failed: int
    created_at: datetime


class CreatedWebhook(Webhook):
    """A new endpoint, or one whose secret was rotated; `secret` is shown this once."""

    secret: str


class Delivery(BaseModel):
    """One event for one endpoint. `id` is what the receiver sees as webhook-id. `attempts` counts; `next_attempt_at` is
    null once it is delivered or was given up; `last_error` says why the last attempt failed.
    """

    id: str
    object: Literal["webhook_delivery"]
    webhook_id: str
    event_id: str
    type: WebhookType
    subject: str
    state: DeliveryState
    attempts: int
    last_status: int | None
    last_error: str | None
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None


class DeliveryAttempt(BaseModel):
    """One attempt: an answer's status and the beginning of its body, or an error."""

    attempt: int
    started_at: datetime
    milliseconds: int
    status: int | None
    error: str | None
    response: str | None


class DeliveryDetail(Delivery):
    """A delivery with what is sent and its newest attempts, newest first. One cut off by a crash leaves no entry."""

    payload: dict[str, Any]
    log: list[DeliveryAttempt]


class Replayed(BaseModel):
    """How many deliveries begin again."""

    object: Literal["replay"]
    deliveries: int
