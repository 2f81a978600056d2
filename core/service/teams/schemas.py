"""Teams, API keys and the audit trail as requests and answers show them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

Role = Literal["viewer", "member", "admin"]
KeyState = Literal["active", "expired", "revoked"]

LONGEST_GRACE_SECONDS = 30 * 24 * 3600


class KeyBody(BaseModel):
    """A new API key. Without `expires_at` it does not expire."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
    role: Role = "member"
    expires_at: AwareDatetime | None = None


class RotateBody(BaseModel):
    """How long the old key is still good once its successor is made."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    grace_seconds: Annotated[float, Field(ge=0, le=LONGEST_GRACE_SECONDS)] = 3600


class Key(BaseModel):
    """An API key without its secret: `prefix` is how it starts."""

    id: str
    object: Literal["key"]
    name: str
    role: Role
    state: KeyState
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class CreatedKey(Key):
    """A new API key; `key` is shown this once."""

    key: str


class Quotas(BaseModel):
    """What a team may use at most; null: as much as there is. `max_device_seconds` is of a calendar month (UTC)."""

    max_running: int | None
    max_queued: int | None
    max_device_seconds: float | None
    max_stored_bytes: int | None


class Usage(BaseModel):
    """What a team uses. `device_seconds` is the time of attempts that ended since `month_started_at`."""

    running: int
    queued: int
    device_seconds: float
    month_started_at: datetime
    stored_bytes: int


class Team(BaseModel):
    """A team: its quotas, which the operator sets, and its use. `weight` is its share of a queue others wait in too."""

    id: str
    object: Literal["team"]
    name: str
    weight: float
    quotas: Quotas
    usage: Usage
    created_at: datetime


class AuditEntry(BaseModel):
    """One change: what (`action`), to what (`object_id`), and who made it: `actor` is `key:ID` (the id alone in
    `key_id`), `operator` for the server's own command line, `nobody` where a key was refused, or what acts by itself,
    such as `trigger:ID`. `address` is where the request came from.
    """

    id: str
    object: Literal["audit_entry"]
    actor: str
    action: str
    object_id: str
    key_id: str | None
    request_id: str | None
    address: str | None
    details: dict[str, Any]
    created_at: datetime
