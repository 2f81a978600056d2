"""Teams, API keys and the audit trail as requests and answers show them."""

from typing import Annotated

from pydantic import AwareDatetime, Field, StringConstraints

from secateur_wire.requests import RequestObject
from secateur_wire.teams import Role

LONGEST_GRACE_SECONDS = 30 * 24 * 3600


class KeyBody(RequestObject):
    """A new API key. Without `expires_at` it does not expire."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
    role: Role = "member"
    expires_at: AwareDatetime | None = None


class RotateBody(RequestObject):
    """A key to replace: the old one stays valid for `grace_seconds` after its successor is created."""

    grace_seconds: Annotated[float, Field(ge=0, le=LONGEST_GRACE_SECONDS)] = 3600
