"""Folder with only the headers and small files of a remote model, for reading its description.

The small files are complete. The weight files have their full size, but no data after the header, so that they use no
disk space. So one reader serves folders, uploads and the hub.
"""

import struct
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from core.engine.checkpoints.files import CHECKED, INDEX_FILE, MOST_BYTES, is_weight_file
from core.service.sources.references import FileReference
from secateur_wire.errors import UnusableModel

MAX_HEADER_BYTES = 16 * 2**20
"""Maximum bytes of a weight file's header; real ones stay under one megabyte."""
MOST_HEADERS_BYTES = 64 * 2**20
"""Maximum bytes of all headers of a model; those of the largest known models, of 214,000 tensors, have half of that."""
READ_IN_FULL = (*CHECKED, INDEX_FILE)
_FIRST_BYTES = 256 * 2**10
"""Bytes of a weight file that are read first: most headers are shorter."""
_AT_ONCE = 8

Read = Callable[[FileReference, int, int], bytes]
"""Function that returns the bytes of a file from a start to before an end."""


def write_header_only_folder(folder: Path, files: Iterable[FileReference], read: Read) -> None:
    """Fill a folder with the files that `inspect_folder` reads. Raises UnusableModel, and the errors of `read`."""
    wanted, headers, counting = list(files), Counter[str](), Lock()

    def header_of(file: FileReference) -> bytes:
        def count(end: int) -> None:
            with counting:
                headers[file.path] = end
                if headers.total() > MOST_HEADERS_BYTES:
                    raise UnusableModel(
                        f"the headers of the weights have more than {MOST_HEADERS_BYTES} bytes together, twice what "
                        "the largest known model has",
                        param="model",
                    )

        return _header(file, read, count)

    small = [file for file in wanted if file.path in READ_IN_FULL]
    for file in small:
        require_readable(file)
    weights = [file for file in wanted if is_weight_file(file.path)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for file, content in zip(small, pool.map(lambda each: read(each, 0, each.bytes), small), strict=True):
            (folder / file.path).write_bytes(content)
        for file, header in zip(weights, pool.map(header_of, weights), strict=True):
            write_header_only_weights(folder / file.path, header, file.bytes)


def require_readable(file: FileReference) -> None:
    """Require that a file without weights is not too large; raises UnusableModel."""
    most = MOST_BYTES.get(file.path)
    if most is not None and file.bytes > most:
        raise UnusableModel(f"{file.path} is larger than {most} bytes", param="model")


def header_end(file: FileReference, first: bytes) -> int | None:
    """Return the offset at which the header of a weight file ends, from its first 8 bytes; None for invalid ones.

    Raises UnusableModel for a header longer than any model needs.
    """
    if len(first) < 8:
        return None
    (length,) = struct.unpack("<Q", first[:8])
    if length > file.bytes - 8:
        return None
    if length > MAX_HEADER_BYTES:
        raise UnusableModel(f"{file.path} has a header of {length} bytes, more than a model needs", param="model")
    return 8 + int(length)


def write_header_only_weights(target: Path, header: bytes, size: int) -> None:
    """Write a weight file of `size` bytes with only the header as real data."""
    with target.open("wb") as stream:
        stream.write(header[:size])
        stream.truncate(size)


def _header(file: FileReference, read: Read, count: Callable[[int], None]) -> bytes:
    """Return the length and header of a weight file, which `count` has allowed; 8 bytes where the length is invalid."""
    first = read(file, 0, min(_FIRST_BYTES, file.bytes))
    end = header_end(file, first)
    if end is None:
        return first[:8]
    count(end)
    return first[:end] + (read(file, len(first), end) if end > len(first) else b"")
