"""Destinations of publications, checked before anything is sent.

A bucket's address could be any host that the dispatcher can reach. So only Amazon's hosts and the host of the
operator's own store are allowed.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from core.service.publications.schemas import PublicationBody
from core.service.sources.hub_names import is_branch, is_repository
from core.settings import Settings
from core.validation import require_credential
from secateur_wire.errors import InvalidRequest

_HUB = "hub:"
_S3 = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._=+-]*/)*[A-Za-z0-9_][A-Za-z0-9._=+-]*")
_REGION = re.compile(r"[a-z]{2}[a-z0-9-]{2,30}")

_OF_HUB = ("token", "revision", "private", "message")
_OF_S3 = ("access_key", "secret_key", "session_token", "region", "endpoint")


class HubDestination(BaseModel):
    """Branch of a model repository; `private` applies only if the repository is created."""

    kind: Literal["hub"] = "hub"
    repository: str
    revision: str | None
    private: bool
    message: str | None

    @property
    def to(self) -> str:
        return f"{_HUB}{self.repository}"

    @property
    def place(self) -> str:
        return f"{self.to}@{self.revision or 'main'}"


class S3Destination(BaseModel):
    """Prefix of a bucket; it may be empty. `endpoint` is null for Amazon's."""

    kind: Literal["s3"] = "s3"
    bucket: str
    prefix: str
    region: str | None
    endpoint: str | None

    @property
    def to(self) -> str:
        return f"{_S3}{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def place(self) -> str:
        return f"{self.to} {self.endpoint or ''}".rstrip()


Destination = HubDestination | S3Destination
destinations: TypeAdapter[Destination] = TypeAdapter(Annotated[Destination, Field(discriminator="kind")])


def read_destination(document: Mapping[str, object]) -> Destination | None:
    """Return a stored destination; None where this release cannot read it."""
    try:
        return destinations.validate_python(document)
    except ValidationError:
        return None


def destination_of(body: PublicationBody, settings: Settings) -> Destination:
    """Return the destination of a request; raises InvalidRequest with the field at fault.

    The error never quotes a credential, nor an address that might contain one.
    """
    for name, value in body.secrets().items():
        require_credential(name, value)
    if body.to.startswith(_HUB):
        return _hub(body)
    if body.to.startswith(_S3):
        return _s3(body, settings)
    raise InvalidRequest("to: is hub:org/name or s3://bucket/prefix", param="to")


def _hub(body: PublicationBody) -> HubDestination:
    _refuse_others(body, _OF_S3, "s3://bucket/prefix")
    repository = body.to.removeprefix(_HUB)
    if not is_repository(repository):
        raise InvalidRequest(
            "to: write hub:org/name, with letters, digits, '-', '_' and '.', at most 96 characters", param="to"
        )
    if "/" not in repository:
        raise InvalidRequest("to: write hub:org/name, with the owner", param="to")
    if body.token is None:
        raise InvalidRequest("token: a token of the hub that may write to the repository is needed", param="token")
    if body.revision is not None and not is_branch(body.revision):
        raise InvalidRequest(f"revision: {body.revision!r} is not the name of a branch", param="revision")
    return HubDestination(
        repository=repository,
        revision=body.revision,
        private=True if body.private is None else body.private,
        message=body.message,
    )


def _s3(body: PublicationBody, settings: Settings) -> S3Destination:
    _refuse_others(body, _OF_HUB, "hub:org/name")
    bucket, _, prefix = body.to.removeprefix(_S3).partition("/")
    prefix = prefix.rstrip("/")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise InvalidRequest(
            "to: write s3:// and a bucket name: 3 to 63 lower-case letters, digits, '-' and '.'", param="to"
        )
    if prefix and not _PREFIX.fullmatch(prefix):
        raise InvalidRequest(
            "to: a prefix has letters, digits and '_', '.', '=', '+', '-', and '/' between its parts",
            param="to",
        )
    for name in ("access_key", "secret_key"):
        if getattr(body, name) is None:
            raise InvalidRequest(f"{name}: is needed to write to a bucket", param=name)
    if body.region is not None and not _REGION.fullmatch(body.region):
        raise InvalidRequest("region: this is not the name of a region, such as eu-central-1", param="region")
    endpoint = None if body.endpoint is None else body.endpoint.rstrip("/")
    if endpoint is not None and endpoint != (settings.store_endpoint or "").rstrip("/"):
        raise InvalidRequest(
            "endpoint: artifacts can be published only to Amazon S3 (no endpoint), or to the service where this "
            "server has its own store",
            param="endpoint",
        )
    return S3Destination(bucket=bucket, prefix=prefix, region=body.region, endpoint=endpoint)


def _refuse_others(body: PublicationBody, names: tuple[str, ...], of: str) -> None:
    for name in names:
        if getattr(body, name) is not None:
            raise InvalidRequest(f"{name}: goes with {of} only", param=name)
