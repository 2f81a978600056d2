"""Texts on disk as documents: plain text (one document per blank-line-separated passage), JSONL, or Parquet.

Sets of conversations are described here too; as documents they are read once a model's template has rendered them.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel

from core.engine.datasets.chat.conversations import is_conversation, measure_conversations
from core.engine.datasets.formats import (
    CHAT_FORMATS,
    CHAT_PARQUET,
    MOST_LINE_BYTES,
    TEXT_FORMATS,
    is_text,
    read_json_lines,
    read_lines,
)
from core.sandbox import run_sandboxed
from secateur_wire.datasets import LeftOut
from secateur_wire.errors import UnusableDataset

_PARQUET = ("parquet", CHAT_PARQUET)
_PLAIN_BYTES = 2**16
"""Largest plain text or JSONL that this process reads itself: a parsed JSON line takes up to 22 times its bytes."""


class TextDescription(BaseModel):
    """Size of a text; `sha256` is the file's hash. `left_out` are the unused rows of a set of conversations."""

    documents: int
    characters: int
    bytes: int
    sha256: str
    left_out: list[LeftOut] | None = None


def read_documents(path: Path, format: str, text_field: str = "text") -> Iterator[str]:
    """Yield the non-empty documents of a file in order; raises UnusableDataset naming the line or column."""
    if not path.is_file():
        raise UnusableDataset(f"{path.name} is not a file", param="path")
    with path.open("rb") as stream:
        yield from documents_in(stream, path.name, format, text_field)


def documents_in(stream: BinaryIO, name: str, format: str, text_field: str) -> Iterator[str]:
    """Return the documents of an open, seekable text, as `read_documents` does."""
    readers = {"text": _read_text, "jsonl": _read_jsonl, "parquet": _read_parquet}
    if format not in readers:
        if format in CHAT_FORMATS:
            raise UnusableDataset(
                f"{name} is a set of conversations, which a model's chat template has to render first", param="format"
            )
        raise UnusableDataset(f"format {format!r} is not known: use {', '.join(TEXT_FORMATS)}", param="format")
    return (document for document in readers[format](stream, name, text_field) if document.strip())


def describe(path: Path, format: str, text_field: str = "text") -> TextDescription:
    """Read a text to its end and describe it; raises UnusableDataset where it is unreadable or empty."""
    if not path.is_file():
        raise UnusableDataset(f"{path.name} is not a file", param="path")
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        size = stream.tell()
        stream.seek(0)
        return describe_stream(stream, path.name, format, text_field, size=size, sha256=sha256)


def describe_stream(
    stream: BinaryIO, name: str, format: str, text_field: str, *, size: int, sha256: str
) -> TextDescription:
    """Describe an open text whose size and hash are known, as `describe` does."""
    if is_sandboxed(format, size):
        measured = run_sandboxed("texts", stream, name, size, format=format, text_field=text_field)
    else:
        measured = _measure(stream, name, format, text_field)
    if not measured["documents"]:
        raise UnusableDataset(f"{name} holds no text", param="path")
    return TextDescription.model_validate(measured | {"bytes": size, "sha256": sha256})


def is_sandboxed(format: str, size: int) -> bool:
    """Return True if a child process, which takes memory, reads a text of this format and size in bytes."""
    return format in _PARQUET or size > _PLAIN_BYTES


def prepare(task: Mapping[str, Any]) -> None:
    """Load what `measure_here` needs for a task."""
    if task["format"] in _PARQUET:
        from core.engine.datasets.parquet import load_arrow

        load_arrow()


def measure_here(stream: BinaryIO, task: Mapping[str, Any]) -> dict[str, Any]:
    """Count documents and characters of a text, read in this process; raises UnusableDataset."""
    name, format = task["name"], task["format"]
    try:
        return _measure(stream, name, format, task["text_field"])
    except MemoryError:
        if format in _PARQUET:
            from core.engine.datasets.parquet import takes_too_much

            raise takes_too_much(name) from None
        raise UnusableDataset(
            f"{name} needs more memory to read than is allowed: a line is too long", param="path"
        ) from None


def _measure(stream: BinaryIO, name: str, format: str, text_field: str) -> dict[str, Any]:
    if format in CHAT_FORMATS:
        return measure_conversations(stream, name, format)
    count = characters = 0
    for document in documents_in(stream, name, format, text_field):
        count += 1
        characters += len(document)
    return {"documents": count, "characters": characters}


def _read_text(stream: BinaryIO, name: str, text_field: str) -> Iterator[str]:
    passage: list[str] = []
    length = 0
    for _, line in read_lines(stream, name):
        if line.strip():
            passage.append(line)
            length += len(line)
        if passage and (not line.strip() or length > MOST_LINE_BYTES):  # no passage is too long for memory
            yield "".join(passage)
            passage, length = [], 0
    if passage:
        yield "".join(passage)


def _read_jsonl(stream: BinaryIO, name: str, text_field: str) -> Iterator[str]:
    for number, record in read_json_lines(stream, name):
        value = record.get(text_field) if isinstance(record, dict) else None
        if not isinstance(value, str):
            if is_conversation(record):
                raise UnusableDataset(
                    f"{name} line {number} is a conversation, and has no string field {text_field!r}: name the format "
                    "chat_jsonl",
                    param="format",
                )
            raise UnusableDataset(
                f"{name} line {number} has no string field {text_field!r}; name the field that holds the text",
                param="text_field",
            )
        if not is_text(value):
            raise UnusableDataset(f"{name} line {number} holds half of a surrogate pair", param="path")
        yield value


def _read_parquet(stream: BinaryIO, name: str, text_field: str) -> Iterator[str]:
    import pyarrow.parquet  # slow to load, and needed only here

    from core.engine.datasets.parquet import column_type, readable

    with readable(name), pyarrow.parquet.ParquetFile(stream) as file:
        kind = column_type(file, name, text_field, "text_field")
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            shown = str(kind)[:100]
            raise UnusableDataset(f"{name} column {text_field!r} is {shown}, not text", param="text_field")
        for batch in file.iter_batches(batch_size=256, columns=[text_field]):
            yield from (text for value in batch.column(0) if (text := value.as_py()) is not None)
