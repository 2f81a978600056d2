"""Models and datasets that clients send in parts."""

from datetime import datetime
from typing import Annotated, Literal

from secateur_wire.base import OneOf, WireModel

UploadKind = Literal["model", "dataset"]
UploadStatus = Literal["open", "complete", "failed"]


class UploadedFile(WireModel):
    """A file of an upload; `received` is the number of its bytes that have arrived."""

    path: str
    bytes: int
    sha256: str
    received: int


class UploadFailure(WireModel):
    """Reason why an upload was refused."""

    code: str
    message: str


class Upload(WireModel):
    """An upload. Its files are sent in parts of at most `part_bytes`; without a part until `expires_at` it is
    removed.
    """

    id: str
    object: Literal["upload"] = "upload"
    kind: UploadKind
    name: str
    status: Annotated[str, OneOf(UploadStatus)]
    files: list[UploadedFile]
    part_bytes: int
    error: UploadFailure | None = None
    expires_at: datetime
    created_at: datetime


class ReceivedPart(WireModel):
    """A file of an upload after a part arrived."""

    path: str
    bytes: int
    received: int
