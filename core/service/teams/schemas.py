"""Teams, API keys and the audit trail as requests and answers show them."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from secateur_wire.requests import RequestObject
from secateur_wire.teams import Role

LONGEST_GRACE_SECONDS = 30 * 24 * 3600


class KeyBody(RequestObject):
    """A new API key. Without `expires_at` it does not expire."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
    role: Role = "member"
    expires_at: AwareDatetime | None = None


ClaimValue = Annotated[str, StringConstraints(min_length=1, max_length=300)]


class WorkloadRuleBody(RequestObject):
    """A rule for pipelines: `claims` must all be equal to those of the pipeline's identity token.

    They name the repository by ids that nobody else can get: `repository_id` and `repository_owner_id` of GitHub, or
    `project_id` and `namespace_id` of GitLab; besides them for example `ref` or `environment`.
    """

    name: Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
    issuer: Annotated[str, StringConstraints(min_length=1, max_length=2000)]
    claims: Annotated[dict[str, ClaimValue], Field(min_length=1, max_length=20)]
    role: Literal["viewer", "member"] = "member"


class WorkloadTokenBody(RequestObject):
    """An identity token of a pipeline, which counts once."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=20_000)]


class RotateBody(RequestObject):
    """A key to replace: the old one stays valid for `grace_seconds` after its successor is created."""

    grace_seconds: Annotated[float, Field(ge=0, le=LONGEST_GRACE_SECONDS)] = 3600
