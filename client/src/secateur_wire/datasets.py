"""Registered texts and sets of images."""

from datetime import datetime
from typing import Literal

from secateur_wire.base import WireModel

DatasetFormat = Literal["text", "jsonl", "parquet", "image_folder", "image_parquet"]


class Dataset(WireModel):
    """A registered text, or image set: then `images` can be read, of `classes` classes, and `documents` and
    `characters` are 0. What is of images is null for texts.
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
