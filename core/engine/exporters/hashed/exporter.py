"""Exporter of weights shared by a hash (HashedNets, Chen et al. 2015, arXiv:1504.04788): bucket values, mask and seed.

A hashed file is valid safetensors. A shared tensor `w` of the dense file is stored as `w.buckets` (its values, in its
own dtype) and, where any of its weights are zero, `w.bitmask` (U8, one bit per weight, lowest bit first). Other tensors
are stored unchanged. The metadata hold each shared tensor's seed, and the dense file's own header and SHA-256, so that
the reader, `secateur_wire.weights.hashed`, restores the dense file byte for byte.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import BaseModel
from torch import nn

from core.engine.architectures.structure import LinearShape
from core.engine.checkpoints.safetensors_header import TensorEntry, read_header
from core.engine.exporters.hashed.classifier import share_linears
from core.engine.exporters.hashed.sharing import HashSharing
from core.engine.exporters.protocols import ClassifierPreparation, FolderExporter
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
from core.engine.models.classifier import ClassifierFolder
from core.storage.store import HASHED_SUFFIX
from secateur_wire.base import JsonObject
from secateur_wire.weights.hashed import bucket_and_sign


@dataclass(frozen=True)
class _Shared:
    """Tensor's bucket values as bits, and its bitmask; None where every weight survives."""

    values: bytes
    mask: bytes | None

    def parts(self, tensor: TensorEntry, buckets: int) -> list[StoredTensor]:
        width = weight_bytes(tensor)
        parts = [StoredTensor(f"{tensor.name}.buckets", tensor.dtype, (buckets,), len(self.values), width)]
        if self.mask is not None:
            parts.append(StoredTensor(f"{tensor.name}.bitmask", "U8", (len(self.mask),), len(self.mask), 1))
        return parts


def hash_folder(folder: Path, sharings: Mapping[str, HashSharing]) -> JsonObject:
    """Replace the weight files of a checkpoint by hashed ones; `sharings` holds the hash of each shared tensor by name.

    Returns the entry of the report, in the form of packed artifacts. Raises ValueError where the values of a tensor are
    not shared as its hash says.
    """
    return replace_weight_files(folder, HASHED_SUFFIX, partial(hash_file, sharings=sharings))[0]


def hash_file(dense: Path, hashed: Path, sharings: Mapping[str, HashSharing]) -> FileSize:
    """Write `hashed` from `dense`, both safetensors; one shared tensor is in memory at a time, twice read.

    Raises ValueError where a tensor's weights differ from its sharing's: the file could not be restored.
    """
    tensors = sorted(read_header(dense).values(), key=lambda each: each.start)
    shared = {each.name: sharings[each.name] for each in tensors if each.name in sharings}
    with dense.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        source.seek(0)
        header = source.read(*struct.unpack("<Q", source.read(8)))
        metadata = {
            "format": "secateur-hashed",
            "version": "1",
            "dense_header": header.decode(),
            "dense_sha256": digest,
            "hashed": json.dumps({name: each.seed for name, each in shared.items()}),
        }

        def parts(tensor: TensorEntry) -> Sequence[StoredTensor]:
            sharing = shared.get(tensor.name)
            return () if sharing is None else _shared(source, tensor, sharing).parts(tensor, sharing.buckets)

        def write(target: BinaryIO, tensor: TensorEntry, places: dict[str, int]) -> None:
            hashed_tensor = _shared(source, tensor, shared[tensor.name])
            write_at(target, places[f"{tensor.name}.buckets"], [hashed_tensor.values])
            if hashed_tensor.mask is not None:
                write_at(target, places[f"{tensor.name}.bitmask"], [hashed_tensor.mask])

        write_file(source, hashed, [(tensor, parts(tensor)) for tensor in tensors], metadata, write)
    return FileSize(dense.stat().st_size, hashed.stat().st_size, digest)


def _shared(source: BinaryIO, tensor: TensorEntry, sharing: HashSharing) -> _Shared:
    """Return the bucket values of a tensor, bit by bit: a sign is one bit of a float, whatever its width."""
    if tensor.dtype not in ("F64", "F32", "F16", "BF16"):
        raise ValueError(f"{tensor.name} is stored as {tensor.dtype}, shared weights are floats")
    dtype = UNSIGNED[tensor.dtype]
    weights = np.frombuffer(b"".join(chunks(source, tensor)), dtype)
    survives = weights != 0
    buckets, is_negative = bucket_and_sign(0, len(weights), seed=sharing.seed, buckets=sharing.buckets)
    sign_bits = is_negative.astype(dtype) << dtype(8 * weight_bytes(tensor) - 1)
    values = np.zeros(sharing.buckets, dtype)
    values[buckets[survives]] = (weights ^ sign_bits)[survives]
    if not np.array_equal(np.where(survives, values[buckets] ^ sign_bits, 0), weights):
        raise ValueError(f"{tensor.name} is not shared over {sharing.buckets} buckets by seed {sharing.seed}")
    mask = None if survives.all() else np.packbits(survives, bitorder="little").tobytes()
    assert mask is None or len(mask) == mask_bytes(tensor)
    return _Shared(values.tobytes(), mask)


class _Layer(BaseModel):
    tensor: str
    seed: int
    buckets: int


class _Section(BaseModel):
    layers: list[_Layer]


class WeightSharing(ClassifierPreparation, FolderExporter):
    """Weights of linear layers that share values; the files store each value once."""

    def prepare(
        self,
        model: nn.Module,
        layers: Sequence[LinearShape],
        folder: ClassifierFolder,
        *,
        compression: float | None,
        seed: int,
    ) -> JsonObject:
        assert compression is not None, "checked outputs have one"
        shared = share_linears(model, layers, folder, compression=compression, seed=seed)
        return {"compression": compression, "layers": shared}

    def export(self, folder: Path, section: JsonObject) -> JsonObject:
        layers = _Section.model_validate(section).layers
        return hash_folder(folder, {each.tensor: HashSharing(each.seed, each.buckets) for each in layers})
