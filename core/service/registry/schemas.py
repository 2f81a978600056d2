"""Models and datasets as requests and answers show them. Paths are the server's own and are not shown."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from core.engine.architectures.describe import ShownDescription
from core.validation import spelled

Name = Annotated[
    str,
    spelled(
        r"^[a-z0-9][a-z0-9._-]{0,95}$",
        "1 to 96 lowercase letters a to z, digits, dots, hyphens and underscores, the first a letter or a digit",
    ),
]
Source = Annotated[str, StringConstraints(min_length=1, max_length=500)]
FormatName = Literal["text", "jsonl", "parquet", "image_folder", "image_parquet"]
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
UploadKind = Literal["model", "dataset"]
UploadStatus = Literal["open", "complete", "failed"]


class ModelBody(BaseModel):
    """A model folder to register. `path` is absolute, on the server; `source` says where it came from."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    source: Source = "local"


class Model(ShownDescription):
    """A registered model. `revision` is the hash of its content, `parameters` counts tied weights once."""

    id: str
    object: Literal["model"]
    name: str
    source: str
    revision: str
    created_at: datetime


class DatasetBody(BaseModel):
    """A text file, a Parquet file of images or a folder of images (`class/name.png`) to register. Without `format` the
    suffix decides, which means a text, or images where it is a folder; `text_field` is for JSONL and Parquet,
    `image_field` and `label_field` for image_parquet.
    """

    model_config = ConfigDict(extra="forbid")

    name: Name
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    format: FormatName | None = None
    text_field: FieldName = "text"
    image_field: FieldName = "image"
    label_field: FieldName = "label"
    source: Source = "local"


class Dataset(BaseModel):
    """A registered text, or image set: then `images` can be read, of `classes` classes, and `documents` and
    `characters` are 0. What is of images is null for texts.
    """

    id: str
    object: Literal["dataset"]
    name: str
    source: str
    format: str
    text_field: str
    documents: int
    characters: int
    images: int | None
    classes: int | None
    image_field: str | None
    label_field: str | None
    bytes: int
    sha256: str
    created_at: datetime


class FileToUpload(BaseModel):
    """A file as its sender knows it. `path` is its name, without folders."""

    model_config = ConfigDict(extra="forbid")

    path: Annotated[
        str,
        spelled(
            r"^[A-Za-z0-9_][A-Za-z0-9._-]*$",
            "letters a to z, digits, dots, hyphens and underscores, the first no dot and no hyphen",
            max_length=200,
        ),
    ]
    bytes: Annotated[int, Field(ge=0, le=2**53)]
    sha256: Annotated[str, spelled(r"^[0-9a-f]{64}$", "64 hexadecimal digits, letters in lower case")]


class UploadBody(BaseModel):
    """What will be uploaded: the files of a model folder, or one text or Parquet file of images, which `format` and the
    fields describe.
    """

    model_config = ConfigDict(extra="forbid")

    kind: UploadKind
    name: Name
    files: Annotated[list[FileToUpload], Field(min_length=1, max_length=2000)]
    format: FormatName | None = None
    text_field: FieldName = "text"
    image_field: FieldName = "image"
    label_field: FieldName = "label"
    source: Source = "upload"


class UploadedFile(BaseModel):
    """A file of an upload; `received` is how many of its bytes are there."""

    path: str
    bytes: int
    sha256: str
    received: int


class UploadFailure(BaseModel):
    """Why an upload cannot become what it was announced as."""

    code: str
    message: str


class Upload(BaseModel):
    """An upload. Parts of at most `part_bytes` go to its files; one that gets none until `expires_at` is removed."""

    id: str
    object: Literal["upload"]
    kind: UploadKind
    name: str
    status: UploadStatus
    files: list[UploadedFile]
    part_bytes: int
    error: UploadFailure | None
    expires_at: datetime
    created_at: datetime


class ReceivedPart(BaseModel):
    """A file of an upload after a part arrived."""

    path: str
    bytes: int
    received: int


class HubTokenBody(BaseModel):
    """A token of the hub that may read what the team prunes. It is kept sealed, and never shown again."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[SecretStr, Field(min_length=1, max_length=8000)]


class HubToken(BaseModel):
    """Owner of the token the hub is asked with: the team, since `updated_at`, the operator, or nobody (null)."""

    object: Literal["hub_token"]
    used: Literal["team", "operator"] | None
    updated_at: datetime | None
