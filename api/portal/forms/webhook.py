"""The form of a webhook: read, and filled in again."""

from collections.abc import Mapping
from typing import Any

from api.portal.session import Form
from core.errors import InvalidRequest
from core.service.webhooks.schemas import WebhookBody
from secateur_wire.webhooks import Webhook

FIELDS = tuple(WebhookBody.model_fields)


def body_of(posted: Form) -> dict[str, Any]:
    """Return the body that the form means, to be validated. Raises InvalidRequest for lines that are not NAME=VALUE."""
    metadata: dict[str, str] = {}
    for line in posted.get("metadata").splitlines():
        name, separator, value = line.strip().partition("=")
        if not separator or not name:
            raise InvalidRequest(f"metadata: write NAME=VALUE, one a line, not {line.strip()!r}", param="metadata")
        metadata[name.strip()] = value.strip()
    return {
        "url": posted.get("url"),
        "description": posted.get("description"),
        "types": posted.lists.get("types", []),
        "metadata": metadata,
    }


def values_of(posted: Form) -> dict[str, Any]:
    """Return the form's values as they were typed."""
    return {
        "url": posted.get("url"),
        "description": posted.get("description"),
        "types": posted.lists.get("types", []),
        "metadata": posted.get("metadata"),
    }


def values_from(webhook: Webhook) -> Mapping[str, Any]:
    """Return the form's values for an existing webhook."""
    lines = "\n".join(f"{name}={value}" for name, value in webhook.metadata.items())
    return {"url": webhook.url, "description": webhook.description, "types": webhook.types, "metadata": lines}
