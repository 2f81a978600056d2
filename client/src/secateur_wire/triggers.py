"""Triggers and their firings."""

from datetime import datetime
from typing import Annotated, Generic, Literal

from pydantic import JsonValue, WithJsonSchema
from typing_extensions import TypeVar

from secateur_wire.base import JsonObject, OneOf, WireModel

FiringSource = Literal["manual", "url", "hub", "schedule"]
FiringOutcome = Literal["accepted", "duplicate", "ignored", "refused"]
TriggerSecret = Literal["url", "signing", "hub"]


class TriggerSchedule(WireModel):
    """Schedule by which a trigger fires by itself: a cron expression in an IANA time zone."""

    cron: str
    timezone: str


class HubRepository(WireModel):
    """A hub repository whose commits fire a trigger."""

    repository: str
    type: str
    events: list[str]


Placeholder = TypeVar("Placeholder", default=JsonObject)
Schedule = TypeVar("Schedule", default=TriggerSchedule)
HubSource = TypeVar("HubSource", default=HubRepository)
Error = TypeVar("Error", default=JsonObject)
Body = TypeVar("Body", default=JsonObject)
Needs = TypeVar("Needs", default=JsonObject)


class Trigger(WireModel, Generic[Placeholder, Schedule, HubSource]):
    """A trigger without its secrets. `template` is a job body with placeholders, `event_id` a JSON Pointer."""

    id: str
    object: Literal["trigger"] = "trigger"
    name: str
    description: str
    enabled: bool
    disabled_reason: str | None
    template: JsonObject
    placeholders: dict[str, Placeholder]
    event_id: str | None
    schedule: Schedule | None
    next_fire_at: datetime | None
    hub: HubSource | None
    signing: bool
    created_at: datetime
    updated_at: datetime


class IssuedTrigger(Trigger[Placeholder, Schedule, HubSource], Generic[Placeholder, Schedule, HubSource]):
    """A trigger with its new secrets: only this answer has them."""

    url: str | None
    signing_secret: str | None
    hub_secret: str | None


class Firing(WireModel, Generic[Error]):
    """One firing of a trigger.

    `outcome` is accepted, duplicate, ignored or refused. `error` is the reason of a refusal. `note` says why a firing
    was ignored, or that it was late. `job_id` is the job of the event, created now or before.
    """

    id: str
    object: Literal["trigger_firing"] = "trigger_firing"
    trigger_id: str
    source: Annotated[str, OneOf(FiringSource)]
    outcome: Annotated[str, OneOf(FiringOutcome)]
    event_id: str | None
    job_id: str | None
    error: Error | None
    note: str | None
    payload: Annotated[JsonValue, WithJsonSchema({"title": "Payload"})]
    payload_bytes: int
    actor: str | None
    address: str | None
    request_id: str | None
    created_at: datetime


class TriggerPreview(WireModel, Generic[Body, Needs]):
    """The job that a payload would create, and an estimate of what it needs."""

    object: Literal["trigger_preview"] = "trigger_preview"
    event_id: str | None
    job: Body
    estimate: Needs
