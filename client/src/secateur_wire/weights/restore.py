"""Weight files with a dense file in fewer bytes, and their restoration byte for byte.

Such a file is valid safetensors; its metadata have the dense file's own header and SHA-256. A tensor without another
form is stored unchanged. Memory is limited to a few chunks, whatever the size of the tensor.
"""

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np

CHUNK_WEIGHTS: Final = 2**23
"""Number of weights restored at once; a multiple of 8, so that chunks begin at whole bytes of the bitmask."""
_WIDTHS: Final = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
"""Bytes of the dtypes that may be packed."""
UNSIGNED: Final = {2: np.uint16, 4: np.uint32, 8: np.uint64}
_MAX_HEADER_BYTES: Final = 100_000_000

Mask: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"


class CorruptPackedFile(ValueError):
    """A packed file contradicts itself or does not restore to the original file.

    The text names the file and the fault.
    """


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors file, from byte `start` to `end`."""

    name: str
    dtype: str
    shape: list[int]
    start: int
    end: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.end - self.start

    @property
    def width(self) -> int:
        return _WIDTHS.get(self.dtype, 0)


@dataclass(frozen=True)
class WeightFile:
    """An open weight file: its tensors by name, and its metadata."""

    name: str
    source: BinaryIO
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


Restore = Callable[[WeightFile, Tensor], Iterator[bytes]]
"""Function that yields the bytes of a dense file's tensor, from its stored form."""


def restore_file(file: Path, dense: Path, *, form: str, restore: Restore, versions: Sequence[str] = ("1",)) -> None:
    """Write the dense file that `file`, of a certain `form`, was made from, to a temporary file that is then renamed.

    `versions` are those of the form that `restore` knows. Raises CorruptPackedFile, and then leaves no file.
    """
    entries, metadata = read_file(file)
    stored = {each.name: each for each in entries}
    if metadata.get("format") != f"secateur-{form}" or metadata.get("version") not in versions:
        known = " and ".join(versions)
        raise CorruptPackedFile(f"{file.name} is not a {form} file of a version this program knows ({known})")
    try:
        header = metadata["dense_header"].encode()
        tensors = parse_header(json.loads(header), 8 + len(header))
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptPackedFile(f"{file.name} holds no header of a dense file") from error
    unfinished = dense.with_name(f".{dense.name}.unpacking")
    digest = hashlib.sha256()
    try:
        with file.open("rb") as source, unfinished.open("wb") as target:
            for piece in _pieces(WeightFile(file.name, source, stored, metadata), header, tensors, restore):
                digest.update(piece)
                target.write(piece)
            target.flush()
            os.fsync(target.fileno())
        if digest.hexdigest() != metadata.get("dense_sha256"):
            raise CorruptPackedFile(f"{file.name} does not give back the file that was packed: its SHA-256 differs")
        unfinished.replace(dense)
    finally:
        unfinished.unlink(missing_ok=True)


def _pieces(stored: WeightFile, header: bytes, tensors: list[Tensor], restore: Restore) -> Iterator[bytes]:
    yield struct.pack("<Q", len(header)) + header
    for tensor in sorted(tensors, key=lambda each: each.start):
        unchanged = stored.tensors.get(tensor.name)
        if unchanged is None:
            yield from restore(stored, tensor)
            continue
        if unchanged.nbytes != tensor.nbytes:
            raise CorruptPackedFile(f"{stored.name}: tensor {tensor.name!r} has another size than in the dense file")
        yield from chunks(stored.source, unchanged)


def survivors(stored: WeightFile, tensor: Tensor, mask: Tensor) -> Iterator[Mask]:
    """Yield masks of a tensor's surviving weights, chunk by chunk, from its bitmask, lowest bit first."""
    place = mask.start
    for first in range(0, tensor.numel, CHUNK_WEIGHTS):
        count = min(CHUNK_WEIGHTS, tensor.numel - first)
        stored.source.seek(place)
        bits = stored.source.read(math.ceil(count / 8))
        place += len(bits)
        yield mask_in(bits, count)


def mask_in(bits: bytes, count: int) -> Mask:
    """Return the mask of `count` weights in a bitmask, lowest bit first."""
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=count, bitorder="little").view(np.bool_)


def mask_bytes(tensor: Tensor) -> int:
    """Return the bytes of a bitmask of one bit per weight."""
    return math.ceil(tensor.numel / 8)


def chunks(source: BinaryIO, tensor: Tensor) -> Iterator[bytes]:
    """Yield a stored tensor's bytes in chunks."""
    step = CHUNK_WEIGHTS * (tensor.width or 1)
    for start in range(tensor.start, tensor.end, step):
        source.seek(start)
        chunk = source.read(min(step, tensor.end - start))
        if len(chunk) != min(step, tensor.end - start):
            raise CorruptPackedFile(f"the file ends inside tensor {tensor.name!r}")
        yield chunk


def read_file(file: Path) -> tuple[list[Tensor], dict[str, str]]:
    """Return tensors and metadata of a safetensors file."""
    size = file.stat().st_size
    try:
        with file.open("rb") as source:
            (length,) = struct.unpack("<Q", source.read(8))
            if length > min(_MAX_HEADER_BYTES, size - 8):
                raise ValueError("the header is longer than the file")
            raw = source.read(length)
        header = json.loads(raw)
        metadata = header.get("__metadata__") or {}
        tensors = parse_header(header, 8 + length)
        if any(tensor.end > size for tensor in tensors):
            raise ValueError("a tensor lies beyond its end")
    except (struct.error, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptPackedFile(f"{file.name} is not a safetensors file: {error}") from error
    return tensors, metadata


def parse_header(header: dict[str, Any], data: int) -> list[Tensor]:
    """Return the tensors in a header, whose data begin at byte `data`. Raises KeyError, ValueError, TypeError."""
    tensors = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        tensor = Tensor(name, str(entry["dtype"]), [int(each) for each in entry["shape"]], data + start, data + end)
        if not data <= tensor.start <= tensor.end or min(tensor.shape, default=0) < 0:
            raise ValueError(f"tensor {name!r} has impossible offsets or shape")
        if tensor.width and tensor.nbytes != tensor.numel * tensor.width:
            raise ValueError(f"tensor {name!r} does not fill its bytes")
        tensors.append(tensor)
    return tensors
