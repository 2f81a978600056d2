"""Codes of quantised weights without those of weight zero: the form of their tensors in packed files, and its decoder.

In the dense file such a tensor is a row of numbers of 4 or 8 bits, the lowest bits of a byte first; half of their range
(8 or 128) is the code of weight zero. In a packed file a tensor `w` is stored as `w.codes` (the kept codes in order,
the lowest bits of a byte first, the last byte filled up with zeros), and their places in one of two forms. The
metadata's `code_bits` is the width of a code.

- `w.bitmask`: one bit per code, lowest bit first.
- `w.pairs`, which is only read, because artifacts of earlier releases have it: two of each four codes in a row are
  stored, of weight zero or not. Which two is a number from 0 to 5, the index in `_PAIRS`; a byte has three of them:
  a + 6b + 36c.
"""

from collections.abc import Iterator
from math import ceil
from typing import Any, Final, TypeAlias

import numpy as np

from secateur_wire.weights.restore import CorruptPackedFile, Mask, Tensor, WeightFile, mask_in

CHUNK_BYTES: Final = 3 * 2**20
"""Bytes of codes handled at once; a multiple of 24, so that chunks begin at whole bytes of both forms of places."""
WIDTHS: Final = (4, 8)
"""Widths of codes, in bits."""
_PAIRS: Final = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
_GROUP: Final = 4
"""Number of codes in a group. Two of them are stored."""
_GROUPS_A_BYTE: Final = 3

Codes: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"

_MASK_OF: Final = np.array(
    [
        [place in _PAIRS[byte // step % len(_PAIRS)] for step in (1, 6, 36) for place in range(_GROUP)]
        for byte in range(256)
    ]
)
"""Mask of the twelve codes whose pairs a byte holds."""


def chunk_sizes(nbytes: int) -> Iterator[int]:
    """Yield the sizes of the chunks in which so many bytes of codes are handled."""
    for start in range(0, nbytes, CHUNK_BYTES):
        yield min(CHUNK_BYTES, nbytes - start)


def codes_in(raw: bytes, bits: int) -> Codes:
    """Return the codes of `bits` bits in bytes."""
    values = np.frombuffer(raw, np.uint8)
    return values if bits == 8 else np.stack((values & 15, values >> 4), axis=-1).reshape(-1)


def bytes_of(codes: Codes, bits: int) -> bytes:
    """Return the bytes of codes of `bits` bits; the last one is filled up with zeros."""
    if bits == 8:
        return codes.tobytes()
    even = np.pad(codes, (0, len(codes) % 2))
    return (even[::2] | even[1::2] << 4).tobytes()


def are_not_zero(codes: Codes, bits: int) -> Mask:
    """Return the mask of the codes of weights that are not zero."""
    mask: Mask = codes != _zero(bits)
    return mask


def _zero(bits: int) -> int:
    return 1 << (bits - 1)


def bitmask_bytes(count: int) -> int:
    """Return the bytes of the bitmask of so many codes."""
    return ceil(count / 8)


def _pairs_bytes(count: int) -> int:
    """Return the bytes of the pairs of so many codes."""
    return ceil(count / _GROUP / _GROUPS_A_BYTE)


def _mask_of_pairs(pairs: bytes, count: int) -> Mask:
    """Return the mask of the codes that are stored, of so many."""
    mask: Mask = _MASK_OF[np.frombuffer(pairs, np.uint8)].reshape(-1)[:count]
    return mask


def restored_codes(stored: WeightFile, tensor: Tensor) -> Iterator[bytes]:
    """Yield the bytes of a dense file's tensor of codes, chunk by chunk; raises CorruptPackedFile."""
    bits = next((each for each in WIDTHS if str(each) == stored.metadata.get("code_bits")), None)
    codes = stored.tensors.get(f"{tensor.name}.codes")
    bitmask, pairs = (stored.tensors.get(f"{tensor.name}.{form}") for form in ("bitmask", "pairs"))
    places, places_bytes = (bitmask, bitmask_bytes) if pairs is None else (pairs, _pairs_bytes)
    if bits is None or codes is None or places is None or places.nbytes != places_bytes(tensor.nbytes * 8 // bits):
        raise CorruptPackedFile(f"{stored.name}: tensor {tensor.name!r} lacks its codes or their places")
    place, before = places.start, 0
    for size in chunk_sizes(tensor.nbytes):
        count = size * 8 // bits
        stored.source.seek(place)
        raw = stored.source.read(places_bytes(count))
        is_kept = _mask_of_pairs(raw, count) if pairs is not None else mask_in(raw, count)
        place += len(raw)
        after = before + int(np.count_nonzero(is_kept))
        first, end = before * bits // 8, ceil(after * bits / 8)
        if end > codes.nbytes:
            raise CorruptPackedFile(f"{stored.name}: the places of {tensor.name!r} count more codes than there are")
        stored.source.seek(codes.start + first)
        restored = np.full(count, _zero(bits), np.uint8)
        kept = codes_in(stored.source.read(end - first), bits)[before - first * 8 // bits :]
        restored[is_kept] = kept[: after - before]
        before = after
        yield bytes_of(restored, bits)
    if ceil(before * bits / 8) != codes.nbytes:
        raise CorruptPackedFile(f"{stored.name}: the places of {tensor.name!r} count fewer codes than there are")
