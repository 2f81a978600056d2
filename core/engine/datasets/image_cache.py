"""Image set on disk, in the form that a classifier takes.

The images are selected, decoded once into a memory-mapped file, and labelled with the model's classes.
"""

import hashlib
import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from PIL import Image

from core.engine.datasets.image_codec import CorruptImages, UnreadableImage, decode_image, is_grayscale
from core.engine.datasets.image_set import ImageSet
from core.engine.datasets.image_source import ImageRows, model_labels, open_rows
from core.engine.datasets.preprocessing import PREPROCESSOR_FILE, Preprocessing
from secateur_wire.errors import TooFewImages, UnusableDataset

_PIXELS = "pixels"
_STATE = "state.json"

Note = Callable[[str], None]


@dataclass(frozen=True)
class ImageFiles:
    """Image set on this machine; `sha256` is the hash of its content."""

    name: str
    path: Path
    format: str
    sha256: str
    image_field: str = "image"
    label_field: str = "label"


@dataclass(frozen=True)
class ImageSelection:
    """Selection of `samples` images of a set (None: all): in random order with a seed, evenly spaced without one.

    No image is taken twice. `param` is the part of a request that an error names.
    """

    samples: int | None = None
    seed: int | None = None
    param: str = "evaluation"

    def order(self, count: int, name: str) -> tuple[list[int], int]:
        """Return all image numbers, the selected ones first, and the number of selected ones; raises TooFewImages."""
        wanted = count if self.samples is None else self.samples
        if wanted > count:
            raise too_few(self.param, wanted, name, count)
        if self.seed is not None:
            return torch.randperm(count, generator=torch.Generator().manual_seed(self.seed)).tolist(), wanted
        spaced = [number * count // wanted for number in range(wanted)]
        chosen = set(spaced)
        return spaced + [number for number in range(count) if number not in chosen], wanted


def too_few(param: str, wanted: int, name: str, available: int) -> TooFewImages:
    return TooFewImages(
        f"{param} needs {wanted} images, but {name!r} has {available}: use fewer samples, or register more images",
        param=f"{param}.samples",
    )


def open_images(
    place: ImageFiles,
    preprocessing: Preprocessing,
    labels: Sequence[str],
    *,
    choice: ImageSelection,
    cache: Path,
    note: Note = lambda text: None,
) -> ImageSet:
    """Open the selected images as uint8 [images, channels, height, width].

    They are mapped from a file below `cache`, which is written once and reused by the same call. `labels` are the
    model's, in order. Unreadable images are left out and replaced by others. Grayscale and colour are converted to the
    model's number of channels, and images are resized to its size. `note` is called for each of these changes.

    Raises UnusableDataset where more than 1 % are unreadable, where a label is not one of the model's, and where images
    differ in size and the model has no size of its own; TooFewImages.
    """
    facts = [asdict(place) | {"path": None}, asdict(preprocessing), list(labels), choice.samples, choice.seed]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    folder = cache / f"images-{key}"
    if not (folder / _STATE).is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=cache, prefix="partial-"))
        try:
            with open_rows(place.path, place.format, place.image_field, place.label_field) as rows:
                state = _decode(rows, place.name, preprocessing, labels, choice, partial / _PIXELS)
            (partial / _STATE).write_text(json.dumps(state))
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    state = json.loads((folder / _STATE).read_text())
    for text in state["notes"]:
        note(text)
    size = math.prod(state["shape"])
    # Nothing is written to them: shared, they do not count as memory of this process.
    pixels = torch.from_file(str(folder / _PIXELS), shared=True, size=size, dtype=torch.uint8)
    return ImageSet(
        pixels.view(state["shape"]),
        torch.tensor(state["labels"]),
        mean=preprocessing.mean,
        deviation=preprocessing.deviation,
        places=torch.tensor(state["places"]),
    )


@dataclass
class _Decoded:
    """State of decoding a set, image by image, into a file with equal slots."""

    preprocessing: Preprocessing
    name: str
    file: BinaryIO
    size: tuple[int, int] | None = None
    first: str = ""
    resized: Counter[str] = field(default_factory=Counter)
    colours: Counter[str] = field(default_factory=Counter)

    def write(self, slot: int, data: bytes | None, called: str) -> None:
        """Decode an image into a slot; raises UnreadableImage, and UnusableDataset for an image of another size."""
        image = decode_image(data)
        if is_grayscale(image) != (self.preprocessing.channels == 1):
            self.colours["grayscale" if is_grayscale(image) else "colour"] += 1
        before = f"{image.height} × {image.width}"
        image, is_resized = self.preprocessing.apply(image)
        size = (image.height, image.width)
        if self.size is None:
            self.size, self.first = size, called
        if size != self.size:
            raise UnusableDataset(
                f"{self.name}: images differ in size ({self.first}: {self.size[0]} × {self.size[1]}, {called}: "
                f"{size[0]} × {size[1]}), and the model does not give a size: make them one size, or give the model "
                f"a {PREPROCESSOR_FILE}",
                param="path",
            )
        if is_resized:
            self.resized[before] += 1
        self.file.seek(slot * size[0] * size[1] * self.preprocessing.channels)
        self.file.write(b"".join(band.tobytes() for band in image.split()))

    def notes(self) -> list[str]:
        notes = []
        if gray := self.colours["grayscale"]:
            notes.append(f"{self.name}: {gray} grayscale images were given three equal channels, as the model takes")
        if colour := self.colours["colour"]:
            notes.append(f"{self.name}: {colour} colour images were turned to grayscale, as the model takes")
        if self.resized and self.size is not None:
            (usual, _), method = self.resized.most_common(1)[0], Image.Resampling(self.preprocessing.resample).name
            notes.append(
                f"{self.name}: {self.resized.total()} images were resized to {self.size[0]} × {self.size[1]} "
                f"({method.lower()}), most of them from {usual}"
            )
        return notes


def _decode(
    rows: ImageRows,
    name: str,
    preprocessing: Preprocessing,
    labels: Sequence[str],
    choice: ImageSelection,
    target: Path,
) -> dict[str, Any]:
    """Fill the slots of a file; return the file's shape, the label and slot of each image, and notes."""
    notes: list[str] = []
    outputs = model_labels(rows, labels, name, notes.append)
    order, wanted = choice.order(len(rows.labels), name)
    corrupt = CorruptImages(rows, name)
    with target.open("wb") as file:
        decoded = _Decoded(preprocessing, name, file)
        slots = {number: slot for slot, number in enumerate(order[:wanted])}
        instead = iter(order[wanted:])
        filled: dict[int, int] = {}
        while slots:
            empty = []
            for number, data in rows.read(sorted(slots)):
                try:
                    decoded.write(slots[number], data, rows.name(number))
                    filled[slots[number]] = outputs[rows.labels[number]]
                except UnreadableImage as error:
                    corrupt.add(number, error)
                    empty.append(slots[number])
            corrupt.require_few()
            slots = {number: slot for slot, number in zip(empty, instead, strict=False)}
        assert decoded.size is not None
        shape = [wanted, preprocessing.channels, *decoded.size]
        file.truncate(math.prod(shape))
    if len(filled) < wanted and choice.samples is not None:
        raise too_few(choice.param, wanted, name, len(filled))
    if corrupt.count:
        notes.append(f"{name}: {corrupt.text}; they were left out")
    places = sorted(filled)
    return {
        "shape": shape,
        "places": places,
        "labels": [filled[place] for place in places],
        "notes": notes + decoded.notes(),
    }
