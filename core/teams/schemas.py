"""API keys as requests and answers show them."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints

Role = Literal["viewer", "member", "admin"]


class KeyBody(BaseModel):
    """A new API key. Without `expires_at` it does not expire."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
    role: Role = "member"
    expires_at: AwareDatetime | None = None


class Key(BaseModel):
    """An API key without its secret: `prefix` is how it starts."""

    id: str
    object: Literal["key"]
    name: str
    role: Role
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class CreatedKey(Key):
    """A new API key; `key` is shown this once."""

    key: str
