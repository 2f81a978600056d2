"""Teams, their API keys, their token for the hub and their audit trail."""

from datetime import datetime
from typing import Annotated, Literal

from secateur_wire.base import JsonObject, OneOf, WireModel

Role = Literal["viewer", "member", "admin"]
KeyState = Literal["active", "expired", "revoked"]
TokenOwner = Literal["team", "operator"]


class Key(WireModel):
    """An API key without its secret: `prefix` is how it starts."""

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
    """A new API key; `key` is shown this once."""

    key: str


class Quotas(WireModel):
    """Limits of what a team may use; null: as much as there is. `max_device_seconds` is of a calendar month (UTC)."""

    max_running: int | None
    max_queued: int | None
    max_device_seconds: float | None
    max_stored_bytes: int | None


class Usage(WireModel):
    """Use by a team. `device_seconds` is the time of attempts that ended since `month_started_at`."""

    running: int
    queued: int
    device_seconds: float
    month_started_at: datetime
    stored_bytes: int


class Team(WireModel):
    """A team: its quotas, which the operator sets, and its use. `weight` is its share of a queue others wait in too."""

    id: str
    object: Literal["team"] = "team"
    name: str
    weight: float
    quotas: Quotas
    usage: Usage
    created_at: datetime


class AuditEntry(WireModel):
    """One change: what (`action`), to what (`object_id`), and who made it: `actor` is `key:ID` (the id alone in
    `key_id`), `operator` for the server's own command line, `nobody` where a key was refused, or what acts by itself,
    such as `trigger:ID`. `address` is where the request came from.
    """

    id: str
    object: Literal["audit_entry"] = "audit_entry"
    actor: str
    action: str
    object_id: str
    key_id: str | None
    request_id: str | None
    address: str | None = None
    details: JsonObject
    created_at: datetime


class HubToken(WireModel):
    """Owner of the token the hub is asked with: the team, since `updated_at`, the operator, or nobody (null)."""

    object: Literal["hub_token"] = "hub_token"
    used: Annotated[str, OneOf(TokenOwner)] | None
    updated_at: datetime | None
