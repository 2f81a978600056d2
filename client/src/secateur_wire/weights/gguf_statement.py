"""Signed statement in the metadata of a GGUF file, in room that its writer left for it.

The statement names the file by the hash of its bytes with spaces in place of the statement itself, since no file can
hold a statement about its own hash.
"""

import hashlib
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

KEY: Final = "secateur.provenance"
"""Key of the metadata."""
ROOM: Final = 64 * 2**10
"""Bytes that a writer leaves for the statement, all of them spaces."""
DIGEST: Final = "sha256WithoutStatement"
"""Algorithm of the hash that names the file, in the statement's digest."""

_BLOCK: Final = 2**20
_WIDTHS: Final[Mapping[int, int]] = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value, by GGUF's number of its type, as far as all values of the type have the same."""
_UNSIGNED: Final = 4
_STRING: Final = 8
_ARRAY: Final = 9


class CorruptGguf(ValueError):
    """File whose header is not that of a GGUF file."""


def read_statement(file: Path) -> str | None:
    """Return the statement in a file's metadata; None where it has none, or its room is empty. Raises CorruptGguf."""
    place = _place_of(file)
    if place is None:
        return None
    with file.open("rb") as stream:
        stream.seek(place.start)
        return stream.read(len(place)).decode(errors="replace").strip(" ") or None


def write_statement(file: Path, statement: str) -> bool:
    """Write a statement into its room, in place; return whether there is room enough. Raises CorruptGguf."""
    place, content = _place_of(file), statement.strip().encode()
    if place is None or len(content) > len(place):
        return False
    with file.open("r+b") as stream:
        stream.seek(place.start)
        stream.write(content.ljust(len(place)))
    return True


def hash_without_statement(file: Path) -> str:
    """Return the SHA-256 of a file with spaces in place of its statement. Raises CorruptGguf."""
    place = _place_of(file) or range(0)
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        _add(digest, stream, place.start)
        digest.update(b" " * len(place))
        stream.seek(place.stop)
        _add(digest, stream, file.stat().st_size - place.stop)
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", stream: BinaryIO, count: int) -> None:
    while count > 0 and (block := stream.read(min(count, _BLOCK))):
        digest.update(block)
        count -= len(block)


def context_of(file: Path) -> int | None:
    """Return the number of tokens that a file's model was made for; None where it does not say. Raises CorruptGguf."""
    for key, kind, header in _values(file):
        if key.endswith(b".context_length") and kind == _UNSIGNED:
            return header.number("<I")
    return None


def _place_of(file: Path) -> range | None:
    """Return the offsets of the statement's room in a file; None where its metadata have none."""
    for key, kind, header in _values(file):
        if key == KEY.encode() and kind == _STRING:
            return header.skip(header.number("<Q"))
    return None


def _values(file: Path) -> "Iterator[tuple[bytes, int, _Header]]":
    """Yield the keys of a file's metadata with the types of their values, which the reader then stands before."""
    with file.open("rb") as stream:
        header = _Header(stream, file.stat().st_size)
        if stream.read(4) != b"GGUF":
            raise CorruptGguf(f"{file.name} is no GGUF file")
        if header.number("<I") not in (2, 3):
            raise CorruptGguf(f"{file.name} is of another version of GGUF than 2 and 3")
        header.number("<Q")  # of tensors
        for _ in range(header.number("<Q")):
            key, kind = header.string(), header.number("<I")
            start = stream.tell()
            yield key, kind, header
            stream.seek(start)
            header.skip_value(kind)


class _Header:
    """Reader of the metadata of a GGUF file, which never goes beyond the file's end."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size

    def number(self, form: str) -> int:
        content = self._stream.read(struct.calcsize(form))
        if len(content) < struct.calcsize(form):
            raise CorruptGguf("the header of the GGUF file is cut off")
        (number,) = struct.unpack(form, content)
        return int(number)

    def string(self) -> bytes:
        place = self.skip(self.number("<Q"))
        self._stream.seek(place.start)
        return self._stream.read(len(place))

    def skip(self, count: int) -> range:
        """Go on by so many bytes; return their offsets."""
        start = self._stream.tell()
        if count > self._size - start:
            raise CorruptGguf("the header of the GGUF file is cut off, or wrong")
        self._stream.seek(start + count)
        return range(start, start + count)

    def skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self.skip(self.number("<Q"))
        elif kind == _ARRAY:
            element, count = self.number("<I"), self.number("<Q")
            if element == _STRING:
                for _ in range(count):
                    self.skip(self.number("<Q"))
            else:
                self.skip(count * self._width(element))
        else:
            self.skip(self._width(kind))

    @staticmethod
    def _width(kind: int) -> int:
        if kind not in _WIDTHS:
            raise CorruptGguf(f"the header of the GGUF file has a value of the unknown type {kind}")
        return _WIDTHS[kind]
