"""Registered texts, sets of conversations, and image sets."""

from datetime import datetime
from typing import Literal

from secateur_wire.base import WireModel

DatasetFormat = Literal["text", "jsonl", "parquet", "chat_jsonl", "chat_parquet", "image_folder", "image_parquet"]


class LeftOut(WireModel):
    """Rows of a set of conversations that are not used, for one reason; `first_line` is the line of the first."""

    reason: str
    rows: int
    first_line: int


class Dataset(WireModel):
    """A registered text, set of conversations, or image set.

    For an image set, `images` is the number of readable images, of `classes` classes, and `documents` and `characters`
    are 0. For a text, the fields about images are null. For a set of conversations, `documents` is the number of those
    that are used, and `left_out` counts the others; it is null for other sets.
    """

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    source: str
    format: str
    text_field: str = "text"
    documents: int
    characters: int
    left_out: list[LeftOut] | None = None
    images: int | None = None
    classes: int | None = None
    image_field: str | None = None
    label_field: str | None = None
    bytes: int
    sha256: str
    created_at: datetime
