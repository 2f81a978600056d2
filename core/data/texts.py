"""Texts on disk as documents: plain text (one document per blank-line-separated passage), JSONL, or Parquet."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
from pydantic import BaseModel

from core.errors import UnusableDataset

FORMATS = ("text", "jsonl", "parquet")
_SUFFIXES = {
    ".txt": "text",
    ".md": "text",
    ".text": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_MAX_LINE_BYTES = 64 * 2**20


class TextDescription(BaseModel):
    """A text's size; `sha256` is of the file."""

    documents: int
    characters: int
    bytes: int
    sha256: str


def detect_format(path: Path) -> str:
    """The format a file's suffix means; raises UnusableDataset naming those known."""
    try:
        return _SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise UnusableDataset(
            f"{path.name}: suffix {path.suffix!r} is not known; use {', '.join(sorted(_SUFFIXES))} or name the format "
            f"({', '.join(FORMATS)})",
            param="format",
        ) from None


def read_documents(path: Path, format: str, text_field: str = "text") -> Iterator[str]:
    """The documents of a file that are not empty, in order; raises UnusableDataset naming the line or column."""
    readers = {"text": _read_text, "jsonl": _read_jsonl, "parquet": _read_parquet}
    if format not in readers:
        raise UnusableDataset(f"format {format!r} is not known: use {', '.join(FORMATS)}", param="format")
    if not path.is_file():
        raise UnusableDataset(f"{path.name} is not a file", param="path")
    return (document for document in readers[format](path, text_field) if document.strip())


def describe(path: Path, format: str, text_field: str = "text") -> TextDescription:
    """Read a whole text and describe it; raises UnusableDataset where it cannot be read or holds nothing."""
    documents = characters = 0
    for document in read_documents(path, format, text_field):
        documents += 1
        characters += len(document)
    if not documents:
        raise UnusableDataset(f"{path.name} holds no text", param="path")
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return TextDescription(documents=documents, characters=characters, bytes=path.stat().st_size, sha256=sha256)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(_MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > _MAX_LINE_BYTES:
                raise UnusableDataset(f"{path.name} line {number} is longer than {_MAX_LINE_BYTES} bytes", param="path")
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UnusableDataset(
                    f"{path.name} line {number} is not UTF-8: {error.reason}", param="path"
                ) from error


def _read_text(path: Path, text_field: str) -> Iterator[str]:
    passage: list[str] = []
    for _, line in _lines(path):
        if line.strip():
            passage.append(line)
        elif passage:
            yield "".join(passage)
            passage = []
    if passage:
        yield "".join(passage)


def _read_jsonl(path: Path, text_field: str) -> Iterator[str]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UnusableDataset(f"{path.name} line {number} is not valid JSON", param="path") from error
        value = record.get(text_field) if isinstance(record, dict) else None
        if not isinstance(value, str):
            raise UnusableDataset(
                f"{path.name} line {number} has no string field {text_field!r}; name the field that holds the text",
                param="text_field",
            )
        yield value


def _read_parquet(path: Path, text_field: str) -> Iterator[str]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if text_field not in columns:
                raise UnusableDataset(
                    f"{path.name} has no column {text_field!r}; it has {', '.join(columns[:20])}", param="text_field"
                )
            kind = file.schema_arrow.field(text_field).type
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise UnusableDataset(f"{path.name} column {text_field!r} is {kind}, not text", param="text_field")
            for batch in file.iter_batches(batch_size=256, columns=[text_field]):
                yield from (value for value in batch.column(0).to_pylist() if value is not None)
    except (pyarrow.ArrowException, OSError) as error:
        raise UnusableDataset(
            f"{path.name} is not a readable Parquet file: {str(error)[:200]}", param="path"
        ) from error
