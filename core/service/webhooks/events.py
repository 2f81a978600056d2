"""Webhook events: their types, and the function that writes one for the subscribed endpoints."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import func, insert, select, text
from sqlalchemy.orm import Session

from core.database import new_id
from core.service.webhooks.tables import WebhookDeliveryRow, WebhookEventRow
from secateur_wire.webhooks import WebhookType

TYPES: tuple[str, ...] = get_args(WebhookType)


@dataclass(frozen=True)
class Listener:
    """Endpoint that subscribes to a type of events with this metadata (None: any)."""

    webhook_id: str
    labels: Mapping[str, Any] | None

    def wants(self, metadata: Mapping[str, Any]) -> bool:
        labels = self.labels or {}
        return all(name in metadata and metadata[name] == value for name, value in labels.items())


@dataclass(frozen=True)
class WebhookEvent:
    """Event of a team. `data` is plain JSON; endpoints with a metadata filter look at its `metadata`.

    `subject` is the id of the object that changed: events of one subject are delivered in the order they were written.
    """

    team_id: str
    type: WebhookType
    data: Mapping[str, Any]
    subject: str


_LISTENERS = text("""
    SELECT id, metadata FROM webhooks
    WHERE team_id = :team AND enabled AND (types IS NULL OR :type = ANY(types))
    ORDER BY id
    FOR KEY SHARE
""")


def listeners(session: Session, team_id: str, type: WebhookType) -> list[Listener]:
    """Return the team's enabled endpoints for this type, locked against deletion until the transaction ends.

    An event of a team without endpoints costs one index look-up.
    """
    assert type in TYPES, type
    rows = session.execute(_LISTENERS, {"team": team_id, "type": type})
    return [Listener(row.id, row.metadata) for row in rows]


def emit(session: Session, event: WebhookEvent) -> None:
    """Write an event, and a delivery of it for each endpoint of the team that wants it, in the caller's transaction.

    The caller holds the row of its subject locked.
    """
    if endpoints := listeners(session, event.team_id, event.type):
        write_event(session, endpoints, event)


def write_event(session: Session, endpoints: Sequence[Listener], event: WebhookEvent) -> list[str]:
    """Write the event and a delivery for each of `endpoints` that subscribed to it; return the deliveries' ids."""
    metadata = event.data.get("metadata")
    subscribed = [each for each in endpoints if each.wants(metadata if isinstance(metadata, Mapping) else {})]
    if not subscribed:
        return []
    event_id = new_id("event")
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    payload = json.dumps(
        {"type": event.type, "timestamp": now.isoformat().replace("+00:00", "Z"), "data": event.data},
        separators=(",", ":"),
        allow_nan=False,
    )
    session.execute(
        insert(WebhookEventRow).values(
            id=event_id, team_id=event.team_id, type=event.type, payload=payload, created_at=now
        )
    )
    rows = [
        {
            "id": new_id("delivery"),
            "webhook_id": each.webhook_id,
            "event_id": event_id,
            "type": event.type,
            "subject": event.subject,
        }
        for each in subscribed
    ]
    session.execute(insert(WebhookDeliveryRow), rows)
    return [row["id"] for row in rows]
