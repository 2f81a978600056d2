"""Parts of an artifact's weight files other than plain tensors, and their writing chunk by chunk."""

import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from core.engine.checkpoints.safetensors_header import TensorEntry
from secateur_wire.base import JsonObject

CHUNK_WEIGHTS = 2**23
"""Weights per chunk; a multiple of 8, so that chunks begin at whole bytes of the bitmask."""
UNSIGNED = {
    "F64": np.uint64,
    "I64": np.uint64,
    "F32": np.uint32,
    "I32": np.uint32,
    "F16": np.uint16,
    "BF16": np.uint16,
}
"""Dtypes that are packed, as bits; narrower ones gain little and are stored unchanged."""


@dataclass(frozen=True)
class StoredTensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    alignment: int


@dataclass(frozen=True)
class FileSize:
    """Sizes of one weight file in bytes, dense and as it is `stored`, and the SHA-256 of the dense file."""

    dense: int
    stored: int
    dense_sha256: str


Size = TypeVar("Size", bound=FileSize)


def replace_weight_files(
    folder: Path, suffix: str, write: Callable[[Path, Path], Size]
) -> tuple[JsonObject, Sequence[Size]]:
    """Replace the weight files of a checkpoint by those that `write` makes of them, whose names end with `suffix`.

    The dense files are deleted once all others are written; config, index and tokenizer stay as they are. Returns the
    sizes of the files, and their entry of the report: `bytes` and `dense_bytes`, and the dense files they restore.
    """
    files = sorted(file for file in folder.glob("*.safetensors") if not file.name.endswith(suffix))
    sizes = {file.name: write(file, file.with_suffix(suffix)) for file in files}
    for file in files:
        file.unlink()
    entry: JsonObject = {
        "bytes": sum(size.stored for size in sizes.values()),
        "dense_bytes": sum(size.dense for size in sizes.values()),
        "restores": {name: {"bytes": size.dense, "sha256": size.dense_sha256} for name, size in sizes.items()},
    }
    return entry, [*sizes.values()]


def weight_bytes(tensor: TensorEntry) -> int:
    """Return the bytes of one weight; 1 for dtypes that are not packed."""
    return np.dtype(UNSIGNED[tensor.dtype]).itemsize if tensor.dtype in UNSIGNED else 1


def mask_bytes(tensor: TensorEntry) -> int:
    """Return the bytes of a mask with one bit for each weight."""
    return math.ceil(tensor.numel / 8)


def unchanged_tensor(tensor: TensorEntry) -> StoredTensor:
    """Return the file part of a tensor that is stored unchanged."""
    return StoredTensor(tensor.name, tensor.dtype, tensor.shape, tensor.end - tensor.start, weight_bytes(tensor))


def write_file(
    source: BinaryIO,
    target: Path,
    stored: Sequence[tuple[TensorEntry, Sequence[StoredTensor]]],
    metadata: dict[str, str],
    write: Callable[[BinaryIO, TensorEntry, dict[str, int]], None],
) -> None:
    """Write the tensors of a dense file: each as its parts, by `write`, or as it is where it has none.

    `write` gets the file, the tensor, and the offset at which each part begins. Parts lie in the order of their widths,
    the widest first. Raises ValueError where a part has the name of another tensor.
    """
    parts = [part for tensor, own in stored for part in own or (unchanged_tensor(tensor),)]
    if len({part.name for part in parts}) < len(parts):
        raise ValueError(f"{target.name}: tensors have the names of its parts")
    with target.open("wb") as stream:
        places = write_header(stream, metadata, sorted(parts, key=lambda part: -part.alignment))
        for tensor, own in stored:
            if own:
                write(stream, tensor, places)
            else:
                write_at(stream, places[tensor.name], chunks(source, tensor))
        stream.flush()
        os.fsync(stream.fileno())


def write_header(target: BinaryIO, metadata: dict[str, str], parts: list[StoredTensor]) -> dict[str, int]:
    """Write the safetensors header; return the offset in the file at which each part begins."""
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
    """Write the chunks at an offset of the file; return the offset behind them."""
    target.seek(place)
    for chunk in chunks:
        target.write(chunk)
    return target.tell()


def chunks(source: BinaryIO, tensor: TensorEntry) -> Iterator[bytes]:
    step = CHUNK_WEIGHTS * weight_bytes(tensor)
    for start in range(tensor.start, tensor.end, step):
        source.seek(start)
        yield source.read(min(step, tensor.end - start))
