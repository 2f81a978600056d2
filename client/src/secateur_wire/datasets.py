"""Registered texts and image sets."""

from datetime import datetime
from typing import Literal

from secateur_wire.base import WireModel

DatasetFormat = Literal["text", "jsonl", "parquet", "image_folder", "image_parquet"]


class Dataset(WireModel):
    """A registered text or image set.

    For an image set, `images` is the number of readable images, of `classes` classes, and `documents` and `characters`
    are 0. For a text, the fields about images are null.
    """

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    source: str
    format: str
    text_field: str = "text"
    documents: int
    characters: int
    images: int | None = None
    classes: int | None = None
    image_field: str | None = None
    label_field: str | None = None
    bytes: int
    sha256: str
    created_at: datetime
