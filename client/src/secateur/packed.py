"""Unpacking: the dense weight files of a checkpoint, byte for byte, from bitmasks and surviving values.

A packed file is valid safetensors. A pruned tensor `w` is stored as `w.values` (its values whose bits are not all zero,
in order) and `w.bitmask` (one bit a weight, lowest bit first); every other tensor as it is; the metadata hold the dense
file's own header and SHA-256. Memory is bounded by a few chunks, whatever the tensor.
"""

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from secateur.errors import DownloadError

SUFFIX: Final = ".packed.safetensors"
_CHUNK_WEIGHTS: Final = 2**23
"""Weights restored at once; a multiple of 8, so that chunks begin at whole bytes of the bitmask."""
_WIDTHS: Final = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
"""Bytes of the dtypes that may be packed."""
_UNSIGNED: Final = {2: np.uint16, 4: np.uint32, 8: np.uint64}
_MAX_HEADER_BYTES: Final = 100_000_000


class CorruptPackedFile(DownloadError):
    """A packed file contradicts itself or does not give back what was packed; its text names the file and the fault."""


@dataclass(frozen=True)
class _Tensor:
    name: str
    dtype: str
    shape: list[int]
    start: int
    end: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        return _WIDTHS.get(self.dtype, 0)


def unpack_file(packed: Path, dense: Path) -> None:
    """Write the dense file that `packed` was made from, byte for byte, aside and then renamed.

    Raises CorruptPackedFile, leaving nothing behind.
    """
    entries, metadata = _read(packed)
    stored = {each.name: each for each in entries}
    if metadata.get("format") != "secateur-packed" or metadata.get("version") != "1":
        raise CorruptPackedFile(f"{packed.name} is not a packed file of a version this program knows (1)")
    try:
        header = metadata["dense_header"].encode()
        whole = 8 + len(header)
        tensors = _parse(json.loads(header), whole)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptPackedFile(f"{packed.name} holds no header of a dense file") from error
    aside = dense.with_name(f".{dense.name}.unpacking")
    digest = hashlib.sha256()
    try:
        with packed.open("rb") as source, aside.open("wb") as target:
            for piece in _restored(packed.name, source, stored, header, tensors):
                digest.update(piece)
                target.write(piece)
            target.flush()
            os.fsync(target.fileno())
        if digest.hexdigest() != metadata.get("dense_sha256"):
            raise CorruptPackedFile(f"{packed.name} does not give back the file that was packed: its SHA-256 differs")
        aside.replace(dense)
    finally:
        aside.unlink(missing_ok=True)


def unpack_folder(folder: Path) -> list[Path]:
    """Restore every packed file of a folder, then remove the packed ones; the restored files.

    Nothing is removed before all are restored and verified, so it can be called again after anything. Raises
    CorruptPackedFile.
    """
    files = sorted(folder.glob(f"*{SUFFIX}"))
    restored = []
    for file in files:
        target = file.with_name(file.name.removesuffix(SUFFIX) + ".safetensors")
        unpack_file(file, target)
        restored.append(target)
    for file in files:
        file.unlink()
    return restored


def _restored(
    name: str, source: BinaryIO, stored: dict[str, _Tensor], header: bytes, tensors: list[_Tensor]
) -> Iterator[bytes]:
    yield struct.pack("<Q", len(header)) + header
    for tensor in sorted(tensors, key=lambda each: each.start):
        if tensor.name in stored:
            if stored[tensor.name].end - stored[tensor.name].start != tensor.end - tensor.start:
                raise CorruptPackedFile(f"{name}: tensor {tensor.name!r} has another size than in the dense file")
            yield from _chunks(source, stored[tensor.name])
            continue
        values, mask = stored.get(f"{tensor.name}.values"), stored.get(f"{tensor.name}.bitmask")
        if values is None or mask is None or not tensor.width or mask.end - mask.start != _mask_bytes(tensor):
            raise CorruptPackedFile(f"{name}: tensor {tensor.name!r} lacks its values or its bitmask")
        yield from _unpacked(name, source, tensor, values, mask)


def _unpacked(name: str, source: BinaryIO, tensor: _Tensor, values: _Tensor, mask: _Tensor) -> Iterator[bytes]:
    dtype = _UNSIGNED[tensor.width]
    place, mask_place = values.start, mask.start
    for first in range(0, tensor.numel, _CHUNK_WEIGHTS):
        count = min(_CHUNK_WEIGHTS, tensor.numel - first)
        source.seek(mask_place)
        bits = np.frombuffer(source.read(math.ceil(count / 8)), np.uint8)
        mask_place += len(bits)
        survives = np.unpackbits(bits, count=count, bitorder="little").view(np.bool_)
        size = int(np.count_nonzero(survives)) * tensor.width
        if place + size > values.end:
            raise CorruptPackedFile(f"{name}: the bitmask of {tensor.name!r} counts more values than there are")
        source.seek(place)
        restored = np.zeros(count, dtype)
        restored[survives] = np.frombuffer(source.read(size), dtype)
        place += size
        yield restored.tobytes()
    if place != values.end:
        raise CorruptPackedFile(f"{name}: the bitmask of {tensor.name!r} counts fewer values than there are")


def _mask_bytes(tensor: _Tensor) -> int:
    return math.ceil(tensor.numel / 8)


def _chunks(source: BinaryIO, tensor: _Tensor) -> Iterator[bytes]:
    step = _CHUNK_WEIGHTS * (tensor.width or 1)
    for start in range(tensor.start, tensor.end, step):
        source.seek(start)
        chunk = source.read(min(step, tensor.end - start))
        if len(chunk) != min(step, tensor.end - start):
            raise CorruptPackedFile(f"the file ends inside tensor {tensor.name!r}")
        yield chunk


def _read(file: Path) -> tuple[list[_Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    size = file.stat().st_size
    try:
        with file.open("rb") as source:
            (length,) = struct.unpack("<Q", source.read(8))
            if length > min(_MAX_HEADER_BYTES, size - 8):
                raise ValueError("the header is longer than the file")
            raw = source.read(length)
        header = json.loads(raw)
        metadata = header.get("__metadata__") or {}
        tensors = _parse(header, 8 + length)
        if any(tensor.end > size for tensor in tensors):
            raise ValueError("a tensor lies beyond its end")
    except (struct.error, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptPackedFile(f"{file.name} is not a safetensors file: {error}") from error
    return tensors, metadata


def _parse(header: dict[str, Any], data: int) -> list[_Tensor]:
    tensors = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        tensor = _Tensor(name, str(entry["dtype"]), [int(each) for each in entry["shape"]], data + start, data + end)
        if not data <= tensor.start <= tensor.end or min(tensor.shape, default=0) < 0:
            raise ValueError(f"tensor {name!r} has impossible offsets or shape")
        if tensor.width and tensor.end - tensor.start != tensor.numel * tensor.width:
            raise ValueError(f"tensor {name!r} does not fill its bytes")
        tensors.append(tensor)
    return tensors
