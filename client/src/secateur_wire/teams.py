"""Teams, their API keys, their token for the hub and their audit trail."""

from datetime import datetime
from typing import Annotated, Literal

from secateur_wire.base import JsonObject, OneOf, WireModel

Role = Literal["viewer", "member", "admin"]
KeyState = Literal["active", "expired", "revoked"]
TokenOwner = Literal["team", "operator"]


class Key(WireModel):
    """An API key without its secret: `prefix` is its beginning."""

    id: str
    object: Literal["key"] = "key"
    name: str
    role: Role
    state: Annotated[str, OneOf(KeyState)]
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class CreatedKey(Key):
    """A new API key; only this answer has its secret, in `key`."""

    key: str


class WorkloadRule(WireModel):
    """A team's rule for pipelines without stored secrets.

    A pipeline that shows an identity token of `issuer` for `audience`, with all of these claims, gets a key with `role`
    for a short time.
    """

    id: str
    object: Literal["workload_rule"] = "workload_rule"
    name: str
    issuer: str
    claims: dict[str, str]
    role: Role
    audience: str
    created_at: datetime


class Person(WireModel):
    """A person who signs in with an account of the identity provider: the role that its claims give in this team."""

    id: str
    object: Literal["person"] = "person"
    name: str
    email: str | None
    role: Role
    created_at: datetime
    signed_in_at: datetime


class Quotas(WireModel):
    """Limits of a team's use; null: no limit. `max_device_seconds` applies to a calendar month (UTC)."""

    max_running: int | None
    max_queued: int | None
    max_device_seconds: float | None
    max_stored_bytes: int | None


class Usage(WireModel):
    """Use of the quotas. `device_seconds` is the time of attempts that ended since `month_started_at`."""

    running: int
    queued: int
    device_seconds: float
    month_started_at: datetime
    stored_bytes: int


class Team(WireModel):
    """A team: its quotas, which the operator sets, and their use. `weight` is its share of queues with other teams."""

    id: str
    object: Literal["team"] = "team"
    name: str
    weight: float
    quotas: Quotas
    usage: Usage
    created_at: datetime


class AuditEntry(WireModel):
    """One change.

    `action` is the kind of change, `object_id` the changed object, and `actor` its author: `key:ID` or `person:ID` (the
    id alone in `key_id` or `person_id`), `operator` for the server's own command line, `nobody` where a key was
    refused, or an automation such as `trigger:ID`. `actor_name` is the present name of the key or the person. `address`
    is the address of the caller.
    """

    id: str
    object: Literal["audit_entry"] = "audit_entry"
    actor: str
    action: str
    object_id: str
    key_id: str | None
    person_id: str | None = None
    actor_name: str | None = None
    request_id: str | None
    address: str | None = None
    details: JsonObject
    created_at: datetime


class HubToken(WireModel):
    """Owner of the hub token for the team: the team itself, since `updated_at`, the operator, or nobody (null)."""

    object: Literal["hub_token"] = "hub_token"
    used: Annotated[str, OneOf(TokenOwner)] | None
    updated_at: datetime | None
