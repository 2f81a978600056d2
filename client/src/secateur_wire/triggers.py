"""Triggers, and the times they were fired."""

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
    """The repository of the hub whose commits fire a trigger."""

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
    """A trigger with those of its secrets that are new: the answer is the only place that ever shows them."""

    url: str | None
    signing_secret: str | None
    hub_secret: str | None


class Firing(WireModel, Generic[Error]):
    """One time a trigger was fired.

    `outcome` is accepted, duplicate, ignored or refused; `error` says why refused, `note` why ignored or that it came
    late; `job_id` is the job the event made, now or before.
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


class TriggerChange(WireModel):
    """Field of a trigger's definition, by its dotted path, before and after a change; null where it had no value."""

    field: str
    before: Annotated[JsonValue, WithJsonSchema({"title": "Before"})]
    after: Annotated[JsonValue, WithJsonSchema({"title": "After"})]


class TriggerVersion(WireModel):
    """Definition that a trigger had from `created_at` on, and what it changed in the one before.

    `actor` gave it, as in the audit trail; null where that is not known.
    """

    object: Literal["trigger_version"] = "trigger_version"
    trigger_id: str
    number: int
    actor: str | None
    definition: JsonObject
    changes: list[TriggerChange]
    created_at: datetime


class TriggerPreview(WireModel, Generic[Body, Needs]):
    """The job a payload would make, and what it would need."""

    object: Literal["trigger_preview"] = "trigger_preview"
    event_id: str | None
    job: Body
    estimate: Needs
