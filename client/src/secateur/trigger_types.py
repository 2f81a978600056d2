"""Answers of the server about triggers."""

from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from secateur.types import Answer

TriggerSecret = Literal["url", "signing", "hub"]


class TriggerSchedule(Answer):
    """Schedule by which a trigger fires by itself: a cron expression in an IANA time zone."""

    cron: str
    timezone: str


class HubSource(Answer):
    """The repository of the hub whose commits fire a trigger."""

    repository: str
    type: str
    events: list[str]


class Trigger(Answer):
    """A trigger without its secrets. `template` is a job body with placeholders, `event_id` a JSON Pointer."""

    id: str
    name: str
    description: str
    enabled: bool
    disabled_reason: str | None
    template: dict[str, JsonValue]
    placeholders: dict[str, dict[str, JsonValue]]
    event_id: str | None
    schedule: TriggerSchedule | None
    next_fire_at: datetime | None
    hub: HubSource | None
    signing: bool
    created_at: datetime
    updated_at: datetime


class IssuedTrigger(Trigger):
    """A trigger with those of its secrets that are new: the answer is the only place that ever shows them."""

    url: str | None
    signing_secret: str | None
    hub_secret: str | None


class Firing(Answer):
    """One time a trigger was fired.

    `outcome` is accepted, duplicate, ignored or refused; `error` says why refused, `note` why ignored or that it came
    late; `job_id` is the job the event made, now or before.
    """

    id: str
    trigger_id: str
    source: str
    outcome: str
    event_id: str | None
    job_id: str | None
    error: dict[str, JsonValue] | None
    note: str | None
    payload: JsonValue
    payload_bytes: int
    actor: str | None
    address: str | None
    request_id: str | None
    created_at: datetime


class TriggerPreview(Answer):
    """The job a payload would make, and what it would need."""

    event_id: str | None
    job: dict[str, JsonValue]
    estimate: dict[str, JsonValue]
