"""Exporter of packed files: in each weight file, pruned tensors become a bitmask and the kept values.

A packed file is valid safetensors. A tensor `w` of the dense file that gets smaller is stored as `w.values` (its values
whose bits are not all zero, in order, in its own dtype) and `w.bitmask` (U8, one bit per weight, lowest bit first, the
last byte filled up with zeros). Other tensors are stored unchanged. The metadata hold the dense file's own header and
SHA-256, so that the reader, `secateur_wire.weights.packed`, restores the dense file byte for byte. Values come first,
widest dtype first, then bitmasks, so that each tensor begins at a multiple of its width.

A weight of b bits and sparsity s takes 1 + (1 − s) b bits. Memory is bounded by a few chunks, whatever the tensor.
"""

import hashlib
import math
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from core.engine.checkpoints.safetensors_header import TensorEntry, read_header
from core.engine.exporters.protocols import FolderExporter
from core.engine.exporters.safetensors_parts import (
    UNSIGNED,
    FileSize,
    StoredTensor,
    chunks,
    mask_bytes,
    replace_weight_files,
    weight_bytes,
    write_at,
    write_file,
)
from core.storage.store import PACKED_SUFFIX
from secateur_wire.base import JsonObject


@dataclass(frozen=True)
class PackedSize(FileSize):
    """Sizes of one weight file in bytes, and the theoretical size.

    `bound` counts 1 + (1 − s) b bits for each weight of a packed tensor, where s and b are the tensor's sparsity and
    width; other tensors count in full.
    """

    bound: int


def pack_folder(folder: Path) -> JsonObject:
    """Replace the weight files of a checkpoint by packed ones; returns their entry of the report."""
    entry, sizes = replace_weight_files(folder, PACKED_SUFFIX, pack_file)
    return entry | {"bound_bytes": sum(size.bound for size in sizes)}


def pack_file(dense: Path, packed: Path) -> PackedSize:
    """Write `packed` from `dense`, both safetensors; `dense` is read twice, to count and to write."""
    tensors = sorted(read_header(dense).values(), key=lambda each: each.start)
    with dense.open("rb") as source:
        prefix = source.read(8)
        header = source.read(*struct.unpack("<Q", prefix))
        digest = hashlib.sha256(prefix + header)
        survivors = {tensor.name: _count(source, tensor, digest) for tensor in tensors}
        is_packed = {
            tensor.name: tensor.dtype in UNSIGNED
            and survivors[tensor.name] * weight_bytes(tensor) + mask_bytes(tensor) < tensor.end - tensor.start
            for tensor in tensors
        }
        stored = [
            (tensor, _packed_parts(tensor, survivors[tensor.name]) if is_packed[tensor.name] else ())
            for tensor in tensors
        ]
        metadata = {
            "format": "secateur-packed",
            "version": "1",
            "dense_header": header.decode(),
            "dense_sha256": digest.hexdigest(),
        }
        write_file(source, packed, stored, metadata, partial(_write_packed, source))
    bits = sum(
        tensor.numel + 8 * weight_bytes(tensor) * survivors[tensor.name]
        if is_packed[tensor.name]
        else 8 * (tensor.end - tensor.start)
        for tensor in tensors
    )
    return PackedSize(dense.stat().st_size, packed.stat().st_size, digest.hexdigest(), math.ceil(bits / 8))


def _count(source: BinaryIO, tensor: TensorEntry, digest: "hashlib._Hash") -> int:
    """Return the number of weights whose bits are not all zero; add the tensor's bytes to the digest of the file."""
    count = 0
    for chunk in chunks(source, tensor):
        digest.update(chunk)
        if tensor.dtype in UNSIGNED:
            count += int(np.count_nonzero(np.frombuffer(chunk, UNSIGNED[tensor.dtype])))
    return count


def _packed_parts(tensor: TensorEntry, survivors: int) -> tuple[StoredTensor, ...]:
    width, mask = weight_bytes(tensor), mask_bytes(tensor)
    return (
        StoredTensor(f"{tensor.name}.values", tensor.dtype, (survivors,), survivors * width, width),
        StoredTensor(f"{tensor.name}.bitmask", "U8", (mask,), mask, 1),
    )


def _write_packed(source: BinaryIO, target: BinaryIO, tensor: TensorEntry, places: dict[str, int]) -> None:
    values, mask = places[f"{tensor.name}.values"], places[f"{tensor.name}.bitmask"]
    for chunk in chunks(source, tensor):
        weights = np.frombuffer(chunk, UNSIGNED[tensor.dtype])
        survives = weights != 0
        values = write_at(target, values, [weights[survives].tobytes()])
        mask = write_at(target, mask, [np.packbits(survives, bitorder="little").tobytes()])


class Packing(FolderExporter):
    """Replacement of weight files by packed ones."""

    def export(self, folder: Path, section: JsonObject) -> JsonObject:
        return pack_folder(folder)
