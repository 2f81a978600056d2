"""Models and datasets that clients send in parts."""

from datetime import datetime
from typing import Annotated, Literal

from secateur_wire.base import OneOf, WireModel

UploadKind = Literal["model", "dataset"]
UploadStatus = Literal["open", "complete", "failed"]


class UploadedFile(WireModel):
    """A file of an upload; `received` is how many of its bytes are there."""

    path: str
    bytes: int
    sha256: str
    received: int


class UploadFailure(WireModel):
    """Why an upload cannot become what it was announced as."""

    code: str
    message: str


class Upload(WireModel):
    """An upload. Parts of at most `part_bytes` go to its files; one that gets none until `expires_at` is removed."""

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
