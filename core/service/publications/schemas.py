"""Publications as requests and answers show them; only requests contain credentials."""

import hashlib
import hmac
from typing import Annotated, Any

from pydantic import BaseModel, Field, SecretStr, StringConstraints

from secateur_wire.requests import RequestObject, spelled

_Secret = Annotated[SecretStr, Field(min_length=1, max_length=8000)]
_Line = Annotated[
    str, spelled(r"^[^\x00-\x1f\x7f]*$", "one line without control characters", min_length=1, max_length=300)
]


class PublicationBody(RequestObject):
    """Destination of a job's artifact, and the credentials to write there.

    `to` is `hub:org/name` or `s3://bucket/prefix`. A hub repository takes a `token` of the hub with write access,
    `revision` (a branch, created if it does not exist), `private` (for a repository that is created) and `message` (of
    the commit). A bucket takes `access_key`, `secret_key`, an optional `session_token`, the bucket's `region`, and
    `endpoint` unless it is Amazon's. Credentials are stored encrypted until the publication ends, then erased.
    """

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
        """Return the given credentials by name."""
        given = {name: getattr(self, name) for name in ("token", "access_key", "secret_key", "session_token")}
        return {name: secret.get_secret_value() for name, secret in given.items() if secret is not None}


class RequestIdentity(BaseModel):
    """Identity of a request for its Idempotency-Key; it contains only a keyed hash of the credentials."""

    body: dict[str, Any]
    credentials: str

    @classmethod
    def of(cls, body: PublicationBody, secret: bytes) -> "RequestIdentity":
        given = repr(sorted(body.secrets().items()))
        digest = hmac.new(secret, b"publication\0" + given.encode(), hashlib.sha256).hexdigest()
        return cls(body=body.model_dump(mode="json"), credentials=digest)
