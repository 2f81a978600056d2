"""Parts of the weight files an artifact may hold in place of plain ones, and how they are written, chunk by chunk."""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from core.engine.checkpoints.safetensors_header import TensorEntry

CHUNK_WEIGHTS = 2**23
"""Weights handled at once; a multiple of 8, so that chunks begin at whole bytes of the bitmask."""
UNSIGNED = {
    "F64": np.uint64,
    "I64": np.uint64,
    "F32": np.uint32,
    "I32": np.uint32,
    "F16": np.uint16,
    "BF16": np.uint16,
}
"""Dtypes that are packed, as bits; narrower ones gain little and are stored as they are."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a weight file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    alignment: int


def weight_bytes(tensor: TensorEntry) -> int:
    """Return the bytes of one weight; 1 for dtypes that are not packed."""
    return np.dtype(UNSIGNED[tensor.dtype]).itemsize if tensor.dtype in UNSIGNED else 1


def mask_bytes(tensor: TensorEntry) -> int:
    """Return the bytes of a mask that has one bit for each weight."""
    return math.ceil(tensor.numel / 8)


def unchanged_tensor(tensor: TensorEntry) -> StoredTensor:
    """Return the file part of a tensor that is stored unchanged."""
    return StoredTensor(tensor.name, tensor.dtype, tensor.shape, tensor.end - tensor.start, weight_bytes(tensor))


def write_header(target: BinaryIO, metadata: dict[str, str], parts: list[StoredTensor]) -> dict[str, int]:
    """Write the safetensors header; returns the offset in the file at which each part begins."""
    header: dict[str, Any] = {"__metadata__": metadata}
    position = 0
    for part in parts:
        offsets = [position, position + part.bytes]
        header[part.name] = {"dtype": part.dtype, "shape": part.shape, "data_offsets": offsets}
        position += part.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(8 * math.ceil(len(text) / 8))
    target.write(struct.pack("<Q", len(text)) + text)
    return {part.name: 8 + len(text) + header[part.name]["data_offsets"][0] for part in parts}


def write_at(target: BinaryIO, place: int, chunks: Iterator[bytes] | list[bytes]) -> int:
    """Write the chunks at an offset of the file; returns the offset behind them."""
    target.seek(place)
    for chunk in chunks:
        target.write(chunk)
    return target.tell()


def chunks(source: BinaryIO, tensor: TensorEntry) -> Iterator[bytes]:
    step = CHUNK_WEIGHTS * weight_bytes(tensor)
    for start in range(tensor.start, tensor.end, step):
        source.seek(start)
        yield source.read(min(step, tensor.end - start))
