"""Encoded images: decoding, measuring and writing. No torch is needed."""

import importlib
import io
import itertools
import json
import pkgutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import PIL
import pyarrow
import pyarrow.parquet
from PIL import Image, ImageOps, UnidentifiedImageError

from core.engine.datasets.image_source import LIBRARY_KEY, FolderRows, ImageRows, ParquetRows, class_count
from core.engine.datasets.parquet import load_arrow, takes_too_much
from secateur_wire.errors import UnusableDataset

MOST_PIXELS = 2**25
"""Largest number of pixels of one image; a larger one counts as corrupt."""
MOST_CORRUPT_SHARE = 0.01
_NAMED = 5
_DECODERS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
_GRAY_MODES = ("1", "L", "LA", "La")
_DEEP_GRAY_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_MOST_SIZES = 20
_ROWS_AT_ONCE = 256


class UnreadableImage(Exception):
    """Bytes that are not an image; the message gives the reason."""


def decode_image(data: bytes | None) -> Image.Image:
    """Decode an image and rotate it by its EXIF orientation; raises UnreadableImage."""
    if not data:
        raise UnreadableImage("it has no bytes, or too many")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about incomplete metadata of the formats
            opened = Image.open(io.BytesIO(data), formats=_DECODERS)
            if opened.width * opened.height > MOST_PIXELS:
                raise UnreadableImage(f"{opened.height} × {opened.width} pixels are more than {MOST_PIXELS}")
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage("its bytes are no image of a format that is read here") from error
    except Exception as error:  # decoders raise exceptions of any type
        raise UnreadableImage(f"its bytes are damaged or cut off ({type(error).__name__})") from error
    if image.mode == "F":
        raise UnreadableImage("its pixels are floating-point numbers, whose range is not known")
    return image


def is_grayscale(image: Image.Image) -> bool:
    return image.mode in _GRAY_MODES + _DEEP_GRAY_MODES


def in_channels(image: Image.Image, channels: int) -> Image.Image:
    """Convert an image to 8 bits for each of 1 or 3 channels.

    Grayscale is the luma (ITU-R 601-2); colour from grayscale is three equal channels.
    """
    if image.mode in _DEEP_GRAY_MODES:
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    return image.convert({1: "L", 3: "RGB"}[channels])


def prepare(task: Mapping[str, Any]) -> None:
    """Load what `measure_here` needs: Pillow loads the parts of its decoders as it meets them."""
    load_arrow()
    for module in pkgutil.iter_modules(PIL.__path__):
        if module.name.endswith(("Plugin", "File", "Tags", "Image", "Palette", "Sequence", "Mode", "Presets", "Chops")):
            with suppress(ImportError):  # of formats that are not read here
                importlib.import_module(f"PIL.{module.name}")
    for form in _DECODERS:
        content = io.BytesIO()
        Image.new("RGB", (8, 8)).save(content, form)
        in_channels(decode_image(content.getvalue()), 1)


def measure_here(source: BinaryIO | Path, task: Mapping[str, Any]) -> dict[str, Any]:
    """Measure an image set by decoding every image in this process; raises UnusableDataset.

    Returns the fields of an `ImagesDescription` except bytes and hash.
    """
    try:
        if isinstance(source, Path):
            return measure_rows(FolderRows(source), task["name"])
        rows = ParquetRows(source, task["name"], task["image_field"], task["label_field"])
        return measure_rows(rows, task["name"])
    except MemoryError:
        raise takes_too_much(task["name"]) from None


def measure_rows(rows: ImageRows, name: str) -> dict[str, Any]:
    """Measure open image rows, as `measure_here` does."""
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    corrupt = CorruptImages(rows, name)
    for number, data in rows.read():
        try:
            image = decode_image(data)
        except UnreadableImage as error:
            corrupt.add(number, error)
            continue
        sizes[f"{image.height} × {image.width}"] += 1
        modes[image.mode] += 1
    corrupt.require_few()
    return {
        "images": sizes.total(),
        "classes": class_count(rows),
        "class_names": list(rows.class_names),
        "sizes": [size for size, _ in sizes.most_common(_MOST_SIZES)],
        "modes": [mode for mode, _ in modes.most_common(_MOST_SIZES)],
        "corrupt": corrupt.count,
        "corrupt_names": corrupt.named,
    }


class CorruptImages:
    """Unreadable images of a set: their count, and the name and fault of the first ones."""

    def __init__(self, rows: ImageRows, name: str) -> None:
        self._rows, self._name = rows, name
        self.count = 0
        self.named: list[str] = []

    def add(self, number: int, error: UnreadableImage) -> None:
        self.count += 1
        if len(self.named) < _NAMED:
            self.named.append(f"{self._rows.name(number)} ({error})")

    def require_few(self) -> None:
        """Raise UnusableDataset if more than 1 % of the set is corrupt."""
        if self.count > MOST_CORRUPT_SHARE * len(self._rows.labels):
            raise UnusableDataset(f"{self._name}: {self.text}; at most 1 % may be corrupt", param="path")

    @property
    def text(self) -> str:
        more = " …" if self.count > len(self.named) else ""
        return f"{self.count} of {len(self._rows.labels)} images cannot be read: {', '.join(self.named)}{more}"


def write_images(
    target: Path,
    images: Iterable[tuple[bytes | None, int | str]],
    class_names: Sequence[str] | None,
    *,
    on_rows: Callable[[int, int], None] = lambda rows, size: None,
) -> int:
    """Write encoded images and their labels as Parquet, in the form of the `datasets` library; return how many.

    Labels are numbers, named by `class_names`; with None, labels are strings. `on_rows` is called after every few
    images with the numbers of images and bytes written so far.
    """
    plain = {"dtype": "string" if class_names is None else "int64", "_type": "Value"}
    label = {"names": list(class_names), "_type": "ClassLabel"} if class_names else plain
    features = {"image": {"_type": "Image"}, "label": label}
    schema = pyarrow.schema(
        [
            ("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
            ("label", pyarrow.string() if class_names is None else pyarrow.int64()),
        ],
        metadata={LIBRARY_KEY: json.dumps({"info": {"features": features}}).encode()},
    )
    written = size = 0
    waiting = iter(images)
    with pyarrow.parquet.ParquetWriter(target, schema, compression="none") as writer:
        while rows := list(itertools.islice(waiting, _ROWS_AT_ONCE)):
            columns = {
                "image": [{"bytes": data, "path": None} for data, _ in rows],
                "label": [label for _, label in rows],
            }
            writer.write_table(pyarrow.Table.from_pydict(columns, schema=schema))
            written += len(rows)
            size += sum(len(data or b"") for data, _ in rows)
            on_rows(written, size)
    return written
