"""Header of a safetensors file: read without loading a tensor and checked against false entries, or written.

Format: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, then the data.
"""

import json
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.untrusted_json import parse_json
from secateur_wire.errors import CorruptSafetensors

MAX_HEADER_BYTES = 100_000_000
_MOST_DIMENSIONS = 64
_BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "I64": 64,
    "I32": 32,
    "I16": 16,
    "I8": 8,
    "U64": 64,
    "U32": 32,
    "U16": 16,
    "U8": 8,
    "C64": 64,
    "BOOL": 8,
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
WEIGHT_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
WEIGHT_BYTES = {name: _BITS[stored] // 8 for stored, name in WEIGHT_DTYPES.items()}


def dtype_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Return the size in bytes of a tensor of this stored dtype and shape."""
    return math.prod(shape) * _BITS[dtype] // 8


@dataclass(frozen=True)
class TensorEntry:
    """Tensor of a file; the offsets of its bytes count from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Return the size in bytes of the tensor as it is read."""
        return self.end - self.start


def encode_header(tensors: Iterable[tuple[str, str, Sequence[int], int]]) -> bytes:
    """Return the length and header of a file with these tensors in order, each as (name, dtype, shape, bytes)."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dtype, shape, size in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(8 * math.ceil(len(text) / 8))
    return struct.pack("<Q", len(text)) + text


def read_header(file: Path) -> dict[str, TensorEntry]:
    """Return a file's entries by tensor name; raises CorruptSafetensors naming the file and the fault."""

    def corrupt(reason: str) -> CorruptSafetensors:
        return CorruptSafetensors(f"{file.name} is not a valid safetensors file: {reason}", param="model")

    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise corrupt(f"it has {size} bytes, fewer than the 8 of the header length")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise corrupt(f"its header claims {length} bytes, but the file has {size}")
        raw = stream.read(length)
    try:
        header = parse_json(raw)
    except ValueError as error:
        raise corrupt(f"its header is not JSON: {str(error)[:200]}") from error
    if not isinstance(header, dict):
        raise corrupt("its header is not a JSON object")
    header.pop("__metadata__", None)
    data = 8 + length
    entries = {name: _entry(file, name, value, data, corrupt) for name, value in header.items()}
    position = data
    for entry in sorted(entries.values(), key=lambda each: (each.start, each.end)):
        if entry.start != position:
            raise corrupt(f"tensor {entry.name[:200]!r} overlaps another or leaves a gap")
        position = entry.end
    if position != size:
        raise corrupt(f"its tensors need {position} bytes, but the file has {size} (truncated or padded)")
    return entries


def _entry(file: Path, name: str, value: Any, data: int, corrupt: Any) -> TensorEntry:
    shown = repr(name[:200])
    try:
        dtype, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise corrupt(f"tensor {shown} lacks dtype, shape or data_offsets") from error
    if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS:
        raise corrupt(f"tensor {shown} has no shape of at most {_MOST_DIMENSIONS} dimensions")
    if not all(type(number) is int and 0 <= number < 2**63 for number in [*shape, start, end]):
        raise corrupt(f"tensor {shown} has a shape or offsets that are not whole numbers ≥ 0")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise corrupt(f"tensor {shown} has unknown dtype {str(dtype)[:50]!r}")
    if end - start != dtype_bytes(dtype, shape):
        raise corrupt(f"tensor {shown} of shape {shape} and dtype {dtype} does not fill its {end - start} bytes")
    return TensorEntry(name, dtype, tuple(shape), file, data + start, data + end)
