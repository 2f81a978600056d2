"""Teams, API keys and the audit trail as requests and answers show them."""

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from secateur_wire.teams import Role

LONGEST_GRACE_SECONDS = 30 * 24 * 3600


class KeyBody(BaseModel):
    """A new API key. Without `expires_at` it does not expire."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
    role: Role = "member"
    expires_at: AwareDatetime | None = None


class RotateBody(BaseModel):
    """A key to replace: the old one stays valid for `grace_seconds` after its successor is created."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    grace_seconds: Annotated[float, Field(ge=0, le=LONGEST_GRACE_SECONDS)] = 3600
