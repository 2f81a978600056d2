"""Conversion between a trigger's row and its definition."""

from typing import Any

from core.service.triggers.schemas import Trigger, TriggerBody
from core.service.triggers.tables import TriggerRow


def definition_of(row: TriggerRow) -> TriggerBody:
    """Return the current definition of a trigger's row."""
    return TriggerBody.model_validate(_shown(row))


def trigger_answer(row: TriggerRow) -> Trigger:
    """Return the trigger as any member of the team may see it."""
    own = ("id", "disabled_reason", "next_fire_at", "created_at", "updated_at")
    return Trigger.model_validate(_shown(row) | {name: getattr(row, name) for name in own}, extra="ignore")


def values_of(body: TriggerBody) -> dict[str, Any]:
    """Return the columns of a definition, without secrets and times."""
    return {
        "name": body.name,
        "description": body.description,
        "enabled": body.enabled,
        "template": body.template,
        "placeholders": {
            name: each.model_dump(mode="json", exclude_none=True) for name, each in body.placeholders.items()
        },
        "event_id": body.event_id,
        "hub": None if body.hub is None else body.hub.model_dump(mode="json"),
        "cron": None if body.schedule is None else body.schedule.cron,
        "timezone": None if body.schedule is None else body.schedule.timezone,
    }


def _shown(row: TriggerRow) -> dict[str, Any]:
    own = ("name", "description", "enabled", "template", "placeholders", "event_id", "hub")
    schedule = None if row.cron is None else {"cron": row.cron, "timezone": row.timezone}
    return {name: getattr(row, name) for name in own} | {
        "schedule": schedule,
        "signing": row.signing_secret is not None,
    }
