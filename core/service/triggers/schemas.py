"""Triggers as requests and answers show them."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from core.service.jobs.schemas import JobBody
from core.service.registry.schemas import Name
from core.service.triggers.json_pointer import Pointer
from core.service.triggers.placeholders import Placeholder
from core.service.triggers.schedule import check_cron, check_timezone
from core.service.triggers.templates import NAME
from secateur_wire import triggers as wire
from secateur_wire.jobs import Estimate, JobError
from secateur_wire.requests import RequestObject, spelled

Description = Annotated[str, StringConstraints(max_length=1000)]
PlaceholderName = Annotated[
    str, spelled(f"^{NAME}$", "1 to 64 letters a to z, digits and underscores, the first no digit")
]
Repository = Annotated[
    str, spelled(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9._-]{1,96}$", "org/name, as the hub writes it")
]
Placeholders = Annotated[dict[PlaceholderName, Placeholder], Field(max_length=50)]
EventPointer = Annotated[Pointer, StringConstraints(min_length=1)]


class Schedule(RequestObject):
    """Times at which the trigger fires by itself."""

    cron: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)] = Field(
        description="Five fields: minute, hour, day, month, weekday. 0 3 * * MON is Mondays at 3."
    )
    timezone: Annotated[str, StringConstraints(min_length=1, max_length=100)] = Field(
        "UTC", description="An IANA name, such as Europe/Berlin."
    )

    _cron = field_validator("cron")(check_cron)
    _timezone = field_validator("timezone")(check_timezone)


class HubSource(RequestObject):
    """A hub repository whose webhook is sent to the trigger's URL.

    `commit`: a new commit on its default branch fires the trigger; other events of the hub are ignored.
    """

    repository: Repository
    type: Literal["model", "dataset"] = "model"
    events: list[Literal["commit"]] = Field(["commit"], min_length=1, max_length=1)


class TriggerBody(RequestObject):
    """A trigger.

    `template` is a job body in which values may be placeholders: `{"$payload": "name"}` as a whole value, `${name}`
    within a string. Each must be declared in `placeholders`.
    """

    name: Name
    description: Description = ""
    enabled: bool = True
    template: dict[str, Any]
    placeholders: Placeholders = Field(default_factory=dict)
    event_id: EventPointer | None = Field(
        None,
        description="Where the payload has its event's id (JSON Pointer), for senders without a webhook-id or "
        "Idempotency-Key header.",
    )
    schedule: Schedule | None = None
    hub: HubSource | None = None
    signing: bool = Field(
        False, description="Require that payloads on the URL are signed (Standard Webhooks) with the trigger's secret."
    )


class TriggerChanges(RequestObject):
    """Changes to a trigger. Fields that are left out stay; null removes a value."""

    name: Name | None = None
    description: Description | None = None
    enabled: bool | None = None
    template: dict[str, Any] | None = None
    placeholders: Placeholders | None = None
    event_id: EventPointer | None = None
    schedule: Schedule | None = None
    hub: HubSource | None = None
    signing: bool | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"name what to change: one of {', '.join(type(self).model_fields)}")
        return self

    def applied_to(self, now: TriggerBody) -> TriggerBody:
        """Return the whole definition; raises pydantic's ValidationError where a required field is null."""
        return TriggerBody.model_validate(now.model_dump() | self.model_dump(exclude_unset=True))


class RotateTriggerBody(RequestObject):
    """Secrets to replace; the old ones become invalid at once."""

    secrets: list[wire.TriggerSecret] = Field(["url"], min_length=1, max_length=3)


class Trigger(wire.Trigger[Placeholder, Schedule, HubSource]):
    """A trigger, without its secrets.

    `next_fire_at` is the next time of its schedule, null without a schedule or while it is disabled; `disabled_reason`
    says why the service disabled it.
    """


class IssuedTrigger(wire.IssuedTrigger[Placeholder, Schedule, HubSource]):
    """A trigger with its new secrets, which are shown only in this answer.

    They are its URL, the secret for signatures of payloads (`whsec_…`), and the secret for the hub's webhook settings.
    A null secret is not new.
    """


class Firing(wire.Firing[JobError]):
    """One firing of a trigger, or a refused request to fire it.

    accepted: it created the job. duplicate: `job_id` is the job that the event created before. ignored: the hub sent
    another event (`note`). refused: `error` says why. A long payload, or one from an unauthenticated sender, is not
    stored.
    """


class TriggerPreview(wire.TriggerPreview[JobBody, Estimate]):
    """The job that a payload would create, with defaults filled in, and an estimate of what it needs."""
