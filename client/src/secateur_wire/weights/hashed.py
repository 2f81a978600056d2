"""Decoder of weight sharing by a hash: each weight of a layer is one of a few values, chosen by a hash of its place.

As in HashedNets (Chen et al. 2015, arXiv:1504.04788, eq. 7 and 8): w_i = ξ(i)·v_h(i), where v are the layer's bucket
values and i is the weight's place in the row-major matrix. The hash is SplitMix64's finaliser (Steele, Lea, Flood 2014,
"Fast splittable pseudorandom number generators") of seed + (i + 1)·γ: its upper 32 bits choose the bucket, its lowest
bit the sign ξ.

In a hashed file a tensor `w` is stored as `w.buckets`, and, if any of its weights are pruned, `w.bitmask` (one bit a
weight, lowest bit first); the metadata's `hashed` is a JSON object with each such tensor's seed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from secateur_wire.weights.restore import (
    CHUNK_WEIGHTS,
    UNSIGNED,
    CorruptPackedFile,
    Tensor,
    WeightFile,
    mask_bytes,
    restore_file,
    survivors,
)

SUFFIX: Final = ".hashed.safetensors"
_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_FLOATS: Final = {"F64", "F32", "F16", "BF16"}

Places: TypeAlias = "np.ndarray[tuple[int], np.dtype[Any]]"


def bucket_and_sign(first: int, count: int, *, seed: int, buckets: int) -> tuple[Places, Places]:
    """Return bucket and sign of the weights at `count` places from `first` on.

    The buckets are int64, below `buckets` < 2³²; the sign is true where ξ is −1.
    """
    with np.errstate(over="ignore"):  # The multiplication overflows on purpose.
        mixed = np.arange(first + 1, first + count + 1, dtype=np.uint64) * _GAMMA + np.uint64(seed)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
        mixed ^= mixed >> np.uint64(31)
    bucket = ((mixed >> np.uint64(32)) * np.uint64(buckets)) >> np.uint64(32)
    return bucket.astype(np.int64), (mixed & np.uint64(1)).astype(np.bool_)


def expand_file(hashed: Path, dense: Path) -> None:
    """Write the dense file that `hashed` was made from, byte for byte, to a temporary file that is then renamed.

    Raises CorruptPackedFile, and then leaves no file.
    """
    restore_file(hashed, dense, form="hashed", restore=_expanded)


def _expanded(stored: WeightFile, tensor: Tensor) -> Iterator[bytes]:
    values, mask = stored.tensors.get(f"{tensor.name}.buckets"), stored.tensors.get(f"{tensor.name}.bitmask")
    seed = _seeds(stored).get(tensor.name)
    if values is None or seed is None or tensor.dtype not in _FLOATS or values.dtype != tensor.dtype:
        raise CorruptPackedFile(f"{stored.name}: tensor {tensor.name!r} lacks its buckets or its seed")
    if not 0 < values.numel < 2**32 or (mask is not None and mask.nbytes != mask_bytes(tensor)):
        raise CorruptPackedFile(f"{stored.name}: the buckets or the bitmask of {tensor.name!r} have another size")
    dtype = UNSIGNED[tensor.width]
    stored.source.seek(values.start)
    values_K = np.frombuffer(stored.source.read(values.nbytes), dtype)
    sign_bit = dtype(1 << (8 * tensor.width - 1))
    kept = None if mask is None else survivors(stored, tensor, mask)
    for first in range(0, tensor.numel, CHUNK_WEIGHTS):
        count = min(CHUNK_WEIGHTS, tensor.numel - first)
        bucket, is_negative = bucket_and_sign(first, count, seed=seed, buckets=len(values_K))
        weights = values_K[bucket]
        weights[is_negative] ^= sign_bit
        if kept is not None:
            weights[~next(kept)] = 0
        yield weights.tobytes()


def _seeds(stored: WeightFile) -> dict[str, int]:
    try:
        seeds = json.loads(stored.metadata["hashed"])
        return {str(name): int(seed) % 2**64 for name, seed in seeds.items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptPackedFile(f"{stored.name} holds no seeds") from error
