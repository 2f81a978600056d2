"""Labelled images on disk: a folder with one folder of images for each class, or a Parquet file.

A Parquet file has a column of images and one of labels, which are mapped to a model's classes. Nothing is decoded here,
and no torch is needed.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow
import pyarrow.parquet

from core.engine.datasets.formats import IMAGE_FOLDER, IMAGE_FORMATS, IMAGE_PARQUET
from core.engine.datasets.parquet import column_type, readable
from core.untrusted_json import parse_json
from secateur_wire.errors import UnusableDataset

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
"""Suffixes of image files; other files in a folder are ignored."""
MOST_FILE_BYTES = 256 * 2**20
"""Largest size of one encoded image; a larger one counts as corrupt."""
MOST_CLASSES = 1_000_000
_MOST_NAME_LENGTH = 500
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}
_BATCH_ROWS = 64


class ImageRows(Protocol):
    """Images by number, in the order of the folder or file, each with its label."""

    @property
    def labels(self) -> Sequence[int]:
        """Class of every image, counted from 0."""

    @property
    def class_names(self) -> Sequence[str]:
        """Name of each class; empty where labels are numbers without names."""

    def name(self, number: int) -> str:
        """Return the name of an image for messages."""

    def read(self, numbers: Sequence[int] | None = None) -> Iterator[tuple[int, bytes | None]]:
        """Yield the number and encoded bytes of these images, in ascending order (None: of all images).

        None stands in place of bytes that are missing or too many. Raises UnusableDataset.
        """


def class_count(rows: ImageRows) -> int:
    """Return the number of classes: the number of names, or else the largest label plus one."""
    return len(rows.class_names) or max(rows.labels) + 1


@contextmanager
def open_rows(path: Path, format: str, image_field: str = "image", label_field: str = "label") -> Iterator[ImageRows]:
    """Open the images at a path; raises UnusableDataset naming the folder, column or row that is invalid."""
    if format == IMAGE_FOLDER:
        yield FolderRows(path)
        return
    if format != IMAGE_PARQUET:
        raise UnusableDataset(f"format {format!r} is not one of images: use {', '.join(IMAGE_FORMATS)}", param="format")
    if not path.is_file():
        raise UnusableDataset(f"{path.name} is not a file", param="path")
    with path.open("rb") as stream:
        yield ParquetRows(stream, path.name, image_field, label_field)


class FolderRows:
    """Rows of a folder of `class/name.png`: the sorted names of its subfolders are the classes."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UnusableDataset(f"{folder.name} is not a folder", param="path")
        classes = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
        if not classes:
            raise UnusableDataset(
                f"{folder.name} holds no folders: an image folder has one for each class (class/name.png)", param="path"
            )
        if all(each.name.lower() in _SPLITS for each in classes):
            raise UnusableDataset(
                f"{folder.name} holds the splits {', '.join(each.name for each in classes)}, not classes: name one of "
                f"them ({folder.name}/{classes[0].name})",
                param="path",
            )
        self._folder = folder
        self._files: list[Path] = []
        self.labels: list[int] = []
        self.class_names = [each.name for each in classes]
        for label, each in enumerate(classes):
            files = sorted(file for file in each.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not files:
                raise UnusableDataset(
                    f"{folder.name}/{each.name} holds no image ({', '.join(SUFFIXES)}): a class needs at least one",
                    param="path",
                )
            self._files += files
            self.labels += [label] * len(files)

    def name(self, number: int) -> str:
        return self._files[number].relative_to(self._folder).as_posix()

    def read(self, numbers: Sequence[int] | None = None) -> Iterator[tuple[int, bytes | None]]:
        for number in range(len(self._files)) if numbers is None else numbers:
            file = self._files[number]
            yield number, file.read_bytes() if file.stat().st_size <= MOST_FILE_BYTES else None


class ParquetRows:
    """Rows of a Parquet file, counted from 0.

    The image column has bytes, or structs {bytes, path} as the `datasets` library writes images; the label column has
    whole numbers from 0, or strings, whose sorted values are the classes.
    """

    def __init__(self, stream: BinaryIO, name: str, image_field: str, label_field: str) -> None:
        self._name, self._field = name, image_field
        with readable(name):
            self._file = pyarrow.parquet.ParquetFile(stream)
            kind = column_type(self._file, name, image_field, "image_field")
            if not _holds_images(kind):
                raise UnusableDataset(
                    f"{name} column {image_field!r} is {str(kind)[:100]}, not images: bytes, or a struct of bytes and "
                    "path",
                    param="image_field",
                )
            self.labels, self.class_names = self._read_labels(label_field)
        if not self.labels:
            raise UnusableDataset(f"{name} holds no images", param="path")

    def name(self, number: int) -> str:
        return f"row {number}"

    def read(self, numbers: Sequence[int] | None = None) -> Iterator[tuple[int, bytes | None]]:
        start = 0
        with readable(self._name):
            for group in range(self._file.num_row_groups):
                end = start + self._file.metadata.row_group(group).num_rows
                if numbers is None:
                    yield from self._read_group(group, start)
                else:
                    inside = numbers[bisect_left(numbers, start) : bisect_left(numbers, end)]
                    if inside:
                        wanted = set(inside)
                        yield from (pair for pair in self._read_group(group, start) if pair[0] in wanted)
                start = end

    def _read_group(self, group: int, number: int) -> Iterator[tuple[int, bytes | None]]:
        batches = self._file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=[self._field])
        for batch in batches:
            for value in batch.column(0):
                cell = value.as_py()
                data = cell.get("bytes") if isinstance(cell, dict) else cell
                yield number, data if data is not None and len(data) <= MOST_FILE_BYTES else None
                number += 1

    def _read_labels(self, field: str) -> tuple[list[int], list[str]]:
        kind = column_type(self._file, self._name, field, "label_field")
        is_encoded = pyarrow.types.is_dictionary(kind)
        plain = kind.value_type if is_encoded else kind
        is_text = pyarrow.types.is_string(plain) or pyarrow.types.is_large_string(plain)
        if not (is_text or pyarrow.types.is_integer(plain)):
            raise UnusableDataset(
                f"{self._name} column {field!r} is {str(kind)[:100]}, not labels: whole numbers or strings",
                param="label_field",
            )
        column = self._file.read(columns=[field]).column(0)
        values = (column.cast(plain) if is_encoded else column).to_pylist()
        if None in values:
            raise UnusableDataset(
                f"{self._name} row {values.index(None)} has no label in column {field!r}", param="label_field"
            )
        if not is_text:
            return values, self._checked_class_names(values, field)
        names = sorted(set(values))
        if len(names) > MOST_CLASSES or any(len(each) > _MOST_NAME_LENGTH for each in names):
            raise UnusableDataset(
                f"{self._name} column {field!r} holds {len(names)} different strings, some of them long: these are no "
                "labels",
                param="label_field",
            )
        numbers = {each: number for number, each in enumerate(names)}
        return [numbers[value] for value in values], names

    def _checked_class_names(self, labels: list[int], field: str) -> list[str]:
        """Return the class names stored by the `datasets` library; raises UnusableDataset for labels without a name."""
        names = _stored_class_names(self._file.schema_arrow.metadata, field)
        most = len(names) or MOST_CLASSES
        for row, label in enumerate(labels):
            if not 0 <= label < most:
                raise UnusableDataset(
                    f"{self._name} row {row} has label {label} in column {field!r}: classes are numbered from 0"
                    + (f" to {most - 1}" if names else ""),
                    param="label_field",
                )
        return names


def _holds_images(kind: pyarrow.DataType) -> bool:
    if pyarrow.types.is_struct(kind):
        number = kind.get_field_index("bytes")
        return number >= 0 and _is_bytes(kind.field(number).type)
    return _is_bytes(kind)


def _is_bytes(kind: pyarrow.DataType) -> bool:
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


LIBRARY_KEY = b"huggingface"
"""Key in a file's metadata under which the `datasets` library stores the meaning of columns, as JSON."""


def _stored_class_names(metadata: dict[bytes, bytes] | None, field: str) -> list[str]:
    """Return the stored class names of a column; empty where there are none, or where they are invalid."""
    try:
        kept: Any = parse_json((metadata or {})[LIBRARY_KEY])["info"]["features"][field]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    is_right = isinstance(kept, list) and all(isinstance(each, str) and len(each) <= _MOST_NAME_LENGTH for each in kept)
    return kept if is_right and len(set(kept)) == len(kept) <= MOST_CLASSES else []


_NAMED = 5


def model_labels(rows: ImageRows, labels: Sequence[str], name: str, note: Callable[[str], None]) -> list[int]:
    """Return, for each class of a set, the model's output that stands for it.

    Classes match by name where every class of the set is a label of the model. They match by number, with a note, where
    no class is a label, or where the set's labels have no names. Raises UnusableDataset, naming class or row, where
    only some classes are labels, and where a number is not one of the model's outputs.
    """
    outputs = {label: number for number, label in enumerate(labels)}
    known = [each in outputs for each in rows.class_names]
    if rows.class_names and all(known):
        numbers = [outputs[each] for each in rows.class_names]
        if numbers != list(range(len(numbers))):
            note(f"{name}: its classes are in another order than the model's labels; they were matched by name")
        return numbers
    if any(known):
        unknown = [each for each, is_known in zip(rows.class_names, known, strict=True) if not is_known]
        raise UnusableDataset(
            f"{name}: {', '.join(map(repr, unknown[:_NAMED]))}{' …' if len(unknown) > _NAMED else ''} "
            f"{'is no label' if len(unknown) == 1 else 'are no labels'} of the model, the other classes are: rename or "
            "remove",
            param="label_field",
        )
    row = next((row for row, label in enumerate(rows.labels) if label >= len(labels)), None)
    if row is not None:
        label = rows.labels[row]
        named = f" ({rows.class_names[label]!r})" if rows.class_names else ""
        raise UnusableDataset(
            f"{name}: {rows.name(row)} has label {label}{named}; the model has {len(labels)} classes, 0 to "
            f"{len(labels) - 1}",
            param="label_field",
        )
    if rows.class_names:
        note(
            f"{name}: none of its class names ({', '.join(rows.class_names[:_NAMED])}"
            f"{' …' if len(rows.class_names) > _NAMED else ''}) is a label of the model; class k was taken as output k"
        )
    return list(range(len(labels)))
