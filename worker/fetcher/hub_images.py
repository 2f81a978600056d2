"""Image splits of hub datasets, written as one Parquet file by the `datasets` library.

The whole split is streamed, each image as it is stored. Nothing is decoded here.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets

from core.engine.datasets.image_codec import write_images
from core.service.sources.hub import HubCredential
from core.service.sources.references import HubImages
from secateur_wire.errors import UnusableDataset
from worker.fetcher.hub_text import open_split, translate_dataset_errors
from worker.fetcher.protocol import MOST_IMAGE_BYTES, FetchedImages

_FORMATS = ("arrow", "parquet")
_IMAGE_FIELD, _LABEL_FIELD = "image", "label"

_Features = dict[str, Any]


def read_hub_images(images: HubImages, target: Path, credential: HubCredential | None) -> FetchedImages:
    """Write the split's images and labels.

    Raises UnknownDataset if the configuration or the split does not exist, UnusableDataset if it is too large or its
    columns of images and labels are not evident, and HubUnavailable.
    """

    def check_size(rows: int, size: int) -> None:
        if size > MOST_IMAGE_BYTES:
            raise UnusableDataset(
                f"{images.name} holds more than {MOST_IMAGE_BYTES} bytes of images: register a part of it as a Parquet "
                "file",
                param="dataset",
            )

    with translate_dataset_errors(images, credential):
        split = open_split(images, credential, _FORMATS)
        features: _Features = dict(split.rows.features or {})
        image, label = _image_field(features, images), _label_field(features, images)
        rows = split.rows.select_columns([image, label])
        if isinstance(features[image], datasets.Image):
            rows = rows.cast_column(image, datasets.Image(decode=False))
        written = write_images(target, _pairs(rows, image, label), _class_names(features[label]), on_rows=check_size)
    if not written:
        raise UnusableDataset(f"{images.name}: split {split.name!r} holds no images", param="dataset")
    with target.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return FetchedImages(sha256=sha256, images=written, origin=split.origin)


def _pairs(rows: Iterable[Mapping[str, Any]], image: str, label: str) -> Iterator[tuple[bytes | None, Any]]:
    for row in rows:
        value = row[image]
        yield (value.get("bytes") if isinstance(value, dict) else value), row[label]


def _image_field(features: _Features, images: HubImages) -> str:
    """Return the column `image`, or the only column with images."""
    return _chosen([name for name, kind in features.items() if _holds_images(kind)], _IMAGE_FIELD, "images", images)


def _label_field(features: _Features, images: HubImages) -> str:
    """Return the column `label`, or the only column with named classes."""
    if _is_label(features.get(_LABEL_FIELD)):
        return _LABEL_FIELD
    named = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    return _chosen(named, _LABEL_FIELD, "classes", images)


def _chosen(fields: list[str], usual: str, what: str, images: HubImages) -> str:
    if usual in fields:
        return usual
    if len(fields) == 1:
        return fields[0]
    raise UnusableDataset(
        f"{images.name} has no column {usual!r}, and {len(fields)} other columns have {what} "
        f"({', '.join(fields[:10])}), so it is not clear which one to use",
        param="dataset",
    )


def _holds_images(kind: Any) -> bool:
    if isinstance(kind, dict):
        kind = kind.get("bytes")
    return isinstance(kind, datasets.Image) or (isinstance(kind, datasets.Value) and kind.dtype.endswith("binary"))


def _is_label(kind: Any) -> bool:
    is_plain = isinstance(kind, datasets.Value) and ("int" in kind.dtype or kind.dtype.endswith("string"))
    return is_plain or isinstance(kind, datasets.ClassLabel)


def _class_names(kind: Any) -> list[str] | None:
    if isinstance(kind, datasets.ClassLabel):
        return list(kind.names)
    return None if kind.dtype.endswith("string") else []
