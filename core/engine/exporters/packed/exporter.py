"""Exporter of packed files: in each weight file, pruned tensors become a bitmask and the kept values or codes.

A packed file is valid safetensors. A tensor `w` of the dense file that gets smaller is stored as `w.values` (its values
whose bits are not all zero, in order, in its own dtype) and `w.bitmask` (U8, one bit per weight, lowest bit first, the
last byte filled up with zeros). Other tensors are stored unchanged. The metadata hold the dense file's own header and
SHA-256, so that the reader, `secateur_wire.weights.packed`, restores the dense file byte for byte. Values come first,
widest dtype first, then bitmasks, so that each tensor begins at a multiple of its width. Codes of quantised weights are
stored as `secateur_wire.weights.codes` describes; files of quantised models are of version 2, all others of version 1.

A weight or code of b bits and sparsity s takes 1 + (1 − s) b bits. Memory is bounded by a few chunks, whatever the
tensor.
"""

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from core.engine.checkpoints.files import CONFIG_FILE
from core.engine.checkpoints.quantisation import PACKED_CODES, quantisation_of
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
from secateur_wire.weights import codes


@dataclass(frozen=True)
class PackedSize(FileSize):
    """Sizes of one weight file in bytes, and the theoretical size.

    `bound` counts the bits of packed tensors, 1 + (1 − s) b for each weight, where s and b are the tensor's sparsity
    and width. Other tensors count in full.
    """

    bound: int


@dataclass(frozen=True)
class _PackedTensor:
    """Packed form of a tensor: its parts, their bits, and the function that writes them at their places in a file."""

    parts: tuple[StoredTensor, ...]
    bits: int
    write: Callable[[BinaryIO, dict[str, int]], None]


def pack_folder(folder: Path) -> JsonObject:
    """Replace the weight files of a checkpoint by packed ones; returns their entry of the report."""
    config = folder / CONFIG_FILE
    quantisation = quantisation_of(json.loads(config.read_text())) if config.is_file() else None
    code_bits = None if quantisation is None else quantisation.bits
    entry, sizes = replace_weight_files(folder, PACKED_SUFFIX, partial(pack_file, code_bits=code_bits))
    return entry | {"bound_bytes": sum(size.bound for size in sizes)}


def pack_file(dense: Path, packed: Path, code_bits: int | None = None) -> PackedSize:
    """Write `packed` from `dense`, both safetensors; `dense` is read twice, to count and to write.

    `code_bits` is the width of the codes in tensors of quantised weights; None where there are none.
    """
    tensors = sorted(read_header(dense).values(), key=lambda each: each.start)
    with dense.open("rb") as source:
        prefix = source.read(8)
        header = source.read(*struct.unpack("<Q", prefix))
        digest = hashlib.sha256(prefix + header)
        forms = {
            tensor.name: form
            for tensor in tensors
            if (form := _packed_form(source, tensor, digest, code_bits)) is not None
        }
        stored = [(tensor, forms[tensor.name].parts if tensor.name in forms else ()) for tensor in tensors]
        metadata = {
            "format": "secateur-packed",
            "version": "1" if code_bits is None else "2",
            "dense_header": header.decode(),
            "dense_sha256": digest.hexdigest(),
        } | ({} if code_bits is None else {"code_bits": str(code_bits)})

        def write(target: BinaryIO, tensor: TensorEntry, places: dict[str, int]) -> None:
            forms[tensor.name].write(target, places)

        write_file(source, packed, stored, metadata, write)
    bits = sum(
        forms[tensor.name].bits if tensor.name in forms else 8 * (tensor.end - tensor.start) for tensor in tensors
    )
    return PackedSize(dense.stat().st_size, packed.stat().st_size, digest.hexdigest(), math.ceil(bits / 8))


def _packed_form(
    source: BinaryIO, tensor: TensorEntry, digest: "hashlib._Hash", code_bits: int | None
) -> _PackedTensor | None:
    """Return the packed form of a tensor, None if it is no smaller; add the tensor's bytes to the file's digest."""
    if code_bits is not None and tensor.name.endswith(PACKED_CODES) and tensor.dtype == "I32":
        form = _packed_codes(source, tensor, digest, code_bits)
    elif tensor.dtype in UNSIGNED:
        form = _packed_values(source, tensor, digest)
    else:
        for chunk in chunks(source, tensor):
            digest.update(chunk)
        return None
    return form if sum(part.bytes for part in form.parts) < tensor.end - tensor.start else None


def _packed_values(source: BinaryIO, tensor: TensorEntry, digest: "hashlib._Hash") -> _PackedTensor:
    """Return the values whose bits are not all zero, and their bitmask."""
    survivors, width, mask = 0, weight_bytes(tensor), mask_bytes(tensor)
    for chunk in chunks(source, tensor):
        digest.update(chunk)
        survivors += int(np.count_nonzero(np.frombuffer(chunk, UNSIGNED[tensor.dtype])))
    parts = (
        StoredTensor(f"{tensor.name}.values", tensor.dtype, (survivors,), survivors * width, width),
        StoredTensor(f"{tensor.name}.bitmask", "U8", (mask,), mask, 1),
    )

    def write(target: BinaryIO, places: dict[str, int]) -> None:
        values, mask = (places[part.name] for part in parts)
        for chunk in chunks(source, tensor):
            weights = np.frombuffer(chunk, UNSIGNED[tensor.dtype])
            survives = weights != 0
            values = write_at(target, values, [weights[survives].tobytes()])
            mask = write_at(target, mask, [np.packbits(survives, bitorder="little").tobytes()])

    return _PackedTensor(parts, tensor.numel + 8 * width * survivors, write)


def _packed_codes(source: BinaryIO, tensor: TensorEntry, digest: "hashlib._Hash", bits: int) -> _PackedTensor:
    """Return the codes of weights that are not zero, and their bitmask."""
    count = (tensor.end - tensor.start) * 8 // bits
    kept, mask_size = 0, codes.bitmask_bytes(count)
    for chunk in _chunks_of_codes(source, tensor):
        digest.update(chunk)
        kept += int(np.count_nonzero(codes.are_not_zero(codes.codes_in(chunk, bits), bits)))
    size = math.ceil(kept * bits / 8)
    parts = (
        StoredTensor(f"{tensor.name}.codes", "U8", (size,), size, 1),
        StoredTensor(f"{tensor.name}.bitmask", "U8", (mask_size,), mask_size, 1),
    )

    def write(target: BinaryIO, places: dict[str, int]) -> None:
        place, mask_place = (places[part.name] for part in parts)
        left = np.empty(0, np.uint8)
        for chunk in _chunks_of_codes(source, tensor):
            read = codes.codes_in(chunk, bits)
            is_kept = codes.are_not_zero(read, bits)
            mask_place = write_at(target, mask_place, [np.packbits(is_kept, bitorder="little").tobytes()])
            left = np.concatenate((left, read[is_kept]))  # with a code of the chunk before, where that filled no byte
            full = len(left) - len(left) % (8 // bits)
            place = write_at(target, place, [codes.bytes_of(left[:full], bits)])
            left = left[full:]
        write_at(target, place, [codes.bytes_of(left, bits)])

    return _PackedTensor(parts, count + bits * kept, write)


def _chunks_of_codes(source: BinaryIO, tensor: TensorEntry) -> Iterator[bytes]:
    source.seek(tensor.start)
    for size in codes.chunk_sizes(tensor.end - tensor.start):
        yield source.read(size)


class Packing(FolderExporter):
    """Replacement of weight files by packed ones."""

    def export(self, folder: Path, section: JsonObject) -> JsonObject:
        return pack_folder(folder)
