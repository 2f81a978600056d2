"""The form of a webhook: read, and filled in again."""

from collections.abc import Mapping
from typing import Any

from api.portal.session import Form
from core.errors import InvalidRequest
from core.webhooks.schemas import Webhook, WebhookBody

FIELDS = tuple(WebhookBody.model_fields)


def body_of(posted: Form) -> dict[str, Any]:
    """What was asked, to be validated. Raises InvalidRequest for lines that are no NAME=VALUE."""
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
    """As it was typed."""
    return {
        "url": posted.get("url"),
        "description": posted.get("description"),
        "types": posted.lists.get("types", []),
        "metadata": posted.get("metadata"),
    }


def values_from(webhook: Webhook) -> Mapping[str, Any]:
    """As it is."""
    lines = "\n".join(f"{name}={value}" for name, value in webhook.metadata.items())
    return {"url": webhook.url, "description": webhook.description, "types": webhook.types, "metadata": lines}
