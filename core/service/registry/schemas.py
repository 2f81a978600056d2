"""Models and datasets as requests and answers show them. Paths are the server's own and are not shown."""

from typing import Annotated

from pydantic import Field, StringConstraints

from secateur_wire.datasets import DatasetFormat
from secateur_wire.requests import RequestObject, spelled
from secateur_wire.uploads import UploadKind

Name = Annotated[
    str,
    spelled(
        r"^[a-z0-9][a-z0-9._-]{0,95}$",
        "1 to 96 lowercase letters a to z, digits, dots, hyphens and underscores, the first a letter or a digit",
    ),
]
Source = Annotated[str, StringConstraints(min_length=1, max_length=500)]
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class ModelBody(RequestObject):
    """A model folder to register. `path` is absolute, on the server; `source` is a note about its origin."""

    name: Name
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    source: Source = "local"


class DatasetBody(RequestObject):
    """A text file, conversations, a Parquet file of images, or a folder of images (`class/name.png`) to register.

    Without `format` the suffix decides: a file is a text, a folder is a set of images. Conversations are chat_jsonl or
    chat_parquet, with rows of `messages`, or of `prompt` and `completion`. `text_field` applies to JSONL
    and Parquet, `image_field` and `label_field` to image_parquet.
    """

    name: Name
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    format: DatasetFormat | None = None
    text_field: FieldName = "text"
    image_field: FieldName = "image"
    label_field: FieldName = "label"
    source: Source = "local"


class FileToUpload(RequestObject):
    """A file as the sender announces it. `path` is its name, without folders."""

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


class UploadBody(RequestObject):
    """Announcement of an upload: the files of a model folder, or one dataset file.

    A dataset file is a text or a Parquet file of images; `format` and the fields describe it.
    """

    kind: UploadKind
    name: Name
    files: Annotated[list[FileToUpload], Field(min_length=1, max_length=2000)]
    format: DatasetFormat | None = None
    text_field: FieldName = "text"
    image_field: FieldName = "image"
    label_field: FieldName = "label"
    source: Source = "upload"
