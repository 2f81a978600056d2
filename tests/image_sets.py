"""Small image sets of known pixels."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image


def encoded(pixels: np.ndarray, format: str = "PNG") -> bytes:
    """Of [height, width] or [height, width, 3]: uint8, or uint16 for grayscale."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def grays(count: int, size: tuple[int, int] = (8, 8)) -> list[bytes]:
    """Image k is all of gray k, as PNG."""
    return [encoded(np.full(size, number % 256, np.uint8)) for number in range(count)]


def write_folder(folder: Path, images: Iterable[bytes], names: Sequence[str]) -> Path:
    """Image k goes to class k modulo the number of names."""
    for number, image in enumerate(images):
        file = folder / names[number % len(names)] / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image)
    return folder


def write_parquet(file: Path, images: Sequence[bytes | None], labels: Sequence[object], **columns: str) -> Path:
    """With images as plain bytes, in row groups of 30; `columns` renames `image` and `label`."""
    names = [columns.get("image", "image"), columns.get("label", "label")]
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table([list(images), list(labels)], names=names), file, row_group_size=30)
    return file
