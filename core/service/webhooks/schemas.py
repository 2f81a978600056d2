"""Webhooks and their deliveries as requests and answers show them."""

from typing import Annotated

from pydantic import AwareDatetime, Field, StringConstraints

from core.http.address_policy import LONGEST_URL
from secateur_wire.requests import LabelName, RequestObject, spelled
from secateur_wire.webhooks import WebhookType

MOST_WEBHOOKS = 50
"""Maximum number of endpoints of a team."""
LONGEST_GRACE_SECONDS = 30 * 24 * 3600

Url = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)]
_NO_NUL = (r"^[^\x00]*$", "text without NUL characters")
Description = Annotated[str, spelled(*_NO_NUL, max_length=300)]
Types = Annotated[list[WebhookType], Field(max_length=20)]
MetadataValue = Annotated[str, spelled(*_NO_NUL, max_length=500)]
Metadata = Annotated[dict[LabelName, MetadataValue], Field(max_length=20)]


class WebhookBody(RequestObject):
    """A new endpoint. Empty `types`: it gets every event. `metadata`: it gets only events with all of these values."""

    url: Url
    description: Description = ""
    types: Types = Field([])
    metadata: Metadata = Field({})


class WebhookChanges(RequestObject):
    """Changes to an endpoint. Fields that are left out stay. `enabled: true` sends the waiting deliveries again."""

    url: Url | None = None
    description: Description | None = None
    types: Types | None = None
    metadata: Metadata | None = None
    enabled: bool | None = None


class RotateSecretBody(RequestObject):
    """A secret to replace: the old one also signs for `grace_seconds` more."""

    grace_seconds: Annotated[float, Field(ge=0, le=LONGEST_GRACE_SECONDS)] = 24 * 3600


class ReplayBody(RequestObject):
    """Start of the time to replay."""

    since: AwareDatetime
