"""Formats of data sets, and the lines of UTF-8 and of JSON in an open file.

Readers of other formats are in other modules, so that naming a format loads none of them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from core.untrusted_json import parse_json
from secateur_wire.errors import UnusableDataset

CHAT_JSONL = "chat_jsonl"
CHAT_PARQUET = "chat_parquet"
CHAT_FORMATS = (CHAT_JSONL, CHAT_PARQUET)
"""Formats of conversations, which a model's chat template turns into text."""
TEXT_FORMATS = ("text", "jsonl", "parquet")
DOCUMENT_END = "\n\n"
"""Text that ends every document where documents are joined to one text."""
IMAGE_FOLDER = "image_folder"
IMAGE_PARQUET = "image_parquet"
IMAGE_FORMATS = (IMAGE_FOLDER, IMAGE_PARQUET)
_SUFFIXES = {
    ".txt": "text",
    ".md": "text",
    ".text": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


def detect_format(path: Path) -> str:
    """Return the format of a folder, or of a file by its suffix; raises UnusableDataset naming the known formats."""
    if path.is_dir():
        return IMAGE_FOLDER
    try:
        return _SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise UnusableDataset(
            f"{path.name}: suffix {path.suffix!r} is not known; use {', '.join(sorted(_SUFFIXES))} or name the format "
            f"({', '.join((*TEXT_FORMATS, *CHAT_FORMATS, *IMAGE_FORMATS))})",
            param="format",
        ) from None


MOST_LINE_BYTES: Final = 64 * 2**20


def read_lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Yield the number of each line, from 1, and its text; raises UnusableDataset for one too long or not UTF-8."""
    number = 0
    while line := stream.readline(MOST_LINE_BYTES + 1):
        number += 1
        if len(line) > MOST_LINE_BYTES:
            raise UnusableDataset(f"{name} line {number} is longer than {MOST_LINE_BYTES} bytes", param="path")
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UnusableDataset(f"{name} line {number} is not UTF-8: {error.reason}", param="path") from error


def read_json_lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each line that is not blank; raises UnusableDataset for invalid JSON."""
    for number, line in read_lines(stream, name):
        if not line.strip():
            continue
        try:
            value = parse_json(line.encode())
        except ValueError as error:
            raise UnusableDataset(
                f"{name} line {number} is not valid JSON: {str(error)[:200]}", param="path"
            ) from error
        yield number, value


def is_text(value: str) -> bool:
    """Return False if the text has half of a surrogate pair: valid in JSON, but rejected by tokenizers."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
