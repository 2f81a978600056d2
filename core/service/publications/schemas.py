"""Publications as requests and answers show them: the credentials are in requests only."""

import hashlib
import hmac
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from secateur_wire.requests import spelled

_Secret = Annotated[SecretStr, Field(min_length=1, max_length=8000)]
_Line = Annotated[
    str, spelled(r"^[^\x00-\x1f\x7f]*$", "one line without control characters", min_length=1, max_length=300)
]


class PublicationBody(BaseModel):
    """Destination of a job's artifact, and the rights to write there.

    `to` is `hub:org/name`, with a `token` of the hub that may write there, and `revision` (a branch, made where there
    is none), `private` (of a repository that is made) and `message` (of the commit); or `s3://bucket/prefix`, with
    `access_key`, `secret_key` and where it has one `session_token`, the bucket's `region`, and `endpoint` where it is
    not Amazon's. Credentials are kept sealed until the publication is over, then erased.
    """

    model_config = ConfigDict(extra="forbid")

    to: Annotated[str, StringConstraints(min_length=1, max_length=1200)]
    token: _Secret | None = None
    revision: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    private: bool | None = None
    message: _Line | None = None
    access_key: _Secret | None = None
    secret_key: _Secret | None = None
    session_token: _Secret | None = None
    region: Annotated[str, StringConstraints(min_length=1, max_length=40)] | None = None
    endpoint: Annotated[str, StringConstraints(min_length=1, max_length=300)] | None = None
    despite_gates: Annotated[
        bool, Field(description="Publish the artifact even if its job failed because a gate was missed.")
    ] = False

    def secrets(self) -> dict[str, str]:
        """Return the credentials that were given, by name."""
        given = {name: getattr(self, name) for name in ("token", "access_key", "secret_key", "session_token")}
        return {name: secret.get_secret_value() for name, secret in given.items() if secret is not None}


class RequestIdentity(BaseModel):
    """A request as it is told from others, for its Idempotency-Key: the credentials only by their keyed hash."""

    body: dict[str, Any]
    credentials: str

    @classmethod
    def of(cls, body: PublicationBody, secret: bytes) -> "RequestIdentity":
        given = repr(sorted(body.secrets().items()))
        digest = hmac.new(secret, b"publication\0" + given.encode(), hashlib.sha256).hexdigest()
        return cls(body=body.model_dump(mode="json"), credentials=digest)
