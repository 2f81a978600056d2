"""Description of an image set. A child process decodes the images, so that this process needs no decoder."""

from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel

from core.engine.datasets.formats import IMAGE_FOLDER
from core.sandbox import run_sandboxed
from secateur_wire.errors import UnusableDataset


class ImagesDescription(BaseModel):
    """Counts and properties of an image set.

    `images` counts the readable images, `corrupt` the others; the first corrupt ones are named with the fault.
    `classes` are named by `class_names`, or else numbered. `sizes` (height × width) and `modes` (as Pillow names them)
    list the most frequent values first, at most 20. `sha256` is the hash of the file, or of a folder's content.
    """

    images: int
    classes: int
    class_names: list[str]
    sizes: list[str]
    modes: list[str]
    corrupt: int
    corrupt_names: list[str]
    bytes: int
    sha256: str


def describe_images(
    path: Path, format: str, image_field: str = "image", label_field: str = "label", *, sha256: str
) -> ImagesDescription:
    """Decode every image of a folder or a Parquet file, in a child process, and describe the set.

    Raises UnusableDataset where labels are missing or invalid, where there are no images, and where more than 1 % of
    the images are unreadable.
    """
    if format == IMAGE_FOLDER:
        if not path.is_dir():
            raise UnusableDataset(f"{path.name} is not a folder", param="path")
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        measured = run_sandboxed("images", path, path.name, size)
        return ImagesDescription(**measured, bytes=size, sha256=sha256)
    if not path.is_file():
        raise UnusableDataset(f"{path.name} is not a file", param="path")
    size = path.stat().st_size
    with path.open("rb") as stream:
        return describe_image_stream(stream, path.name, image_field, label_field, size=size, sha256=sha256)


def describe_image_stream(
    stream: BinaryIO, name: str, image_field: str, label_field: str, *, size: int, sha256: str
) -> ImagesDescription:
    """Describe the images of an open, seekable Parquet file whose size and hash are known."""
    options = {"image_field": image_field, "label_field": label_field}
    return ImagesDescription(**run_sandboxed("images", stream, name, size, **options), bytes=size, sha256=sha256)
