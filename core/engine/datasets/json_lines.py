"""Lines of UTF-8 and of JSON in an open file; errors name the file and the line."""

from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from core.untrusted_json import parse_json
from secateur_wire.errors import UnusableDataset

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
