"""Codes of quantised weights in files of Q8_0 and Q4_0, whose blocks are codes with a scale in float16 too."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.engine.checkpoints.quantisation import QuantisedEntry
from core.engine.checkpoints.safetensors_header import TensorEntry
from core.engine.exporters.gguf.family import Floats
from core.engine.exporters.gguf.file_types import ALL_TYPES, EXACT, FIRST, NEAR_EXACT, stored_type
from core.engine.exporters.gguf.settings import GgufSettings
from core.engine.exporters.gguf.tensors import PlacedTensor, placed_tensors, read_placed
from core.engine.models.folder import ModelFolder
from core.engine.models.tensors import read_codes

_BLOCK: Final = 32
"""Weights of a block of Q8_0 and Q4_0."""
_MOST_CHANGE: Final = 2.0**-11
"""Largest relative change of a number that float16 rounds within its normal range."""


@dataclass(frozen=True)
class TypedTensor:
    """Tensor of a file, with the type that stores it; its codes are stored as they are, or its values are rounded.

    `scale_change` is the largest relative change of the codes' scales in float16.
    """

    placed: PlacedTensor
    kind: str
    has_codes: bool = False
    scale_change: float = 0.0


def holds_codes(folder: ModelFolder, kind: str) -> bool:
    """Return True if files of a type hold the codes of a quantised model's linear layers."""
    bits = ALL_TYPES[kind].code_bits
    return bits is not None and any(_has_codes(each, bits) for each in folder.tensors.values())


def stored_tensors(folder: ModelFolder, settings: GgufSettings, kind: str) -> Iterator[TypedTensor]:
    """Yield each tensor of a folder as a file of a type stores it, unless llama.cpp chooses its type.

    Codes whose scales float16 does not hold are multiplied, and stored in float16. In files of codes all other matrices
    are stored in a type that changes predictions little.
    """
    bits = ALL_TYPES[kind].code_bits if holds_codes(folder, kind) else None
    for placed in placed_tensors(folder, settings):
        of_file = placed.kind(kind)
        if bits is None or of_file == EXACT or len(placed.shape) == 1:
            yield TypedTensor(placed, stored_type(placed.shape, of_file))
        elif not all(_has_codes(each, bits) for each in placed.entries):
            yield TypedTensor(placed, stored_type(placed.shape, NEAR_EXACT))
        elif placed.shape[1] % _BLOCK or (change := _scale_change(placed, settings)) > _MOST_CHANGE:
            yield TypedTensor(placed, FIRST)
        else:
            yield TypedTensor(placed, kind, has_codes=True, scale_change=change)


def read_blocks(stored: TypedTensor, settings: GgufSettings) -> NDArray[np.uint8]:
    """Return the blocks of a tensor with codes, [rows, bytes]: for every 32 weights a scale in float16, and codes."""
    codes = read_placed(stored.placed, settings, _read_codes).astype(np.int8)
    scales = read_placed(stored.placed, settings, _read_scales).astype(np.float16)
    rows, count = len(codes), codes.shape[1] // _BLOCK
    by_block = np.repeat(scales, count // scales.shape[1], axis=1)
    packed: NDArray[np.uint8]
    if ALL_TYPES[stored.kind].code_bits == 4:  # a byte has the codes of two weights, half a block apart
        halves = (codes + np.int8(8)).view(np.uint8).reshape(rows, count, 2, _BLOCK // 2)
        packed = (halves[:, :, 0] | (halves[:, :, 1] << 4)).astype(np.uint8)
    else:
        packed = codes.view(np.uint8).reshape(rows, count, _BLOCK)
    blocks = np.concatenate([by_block.view(np.uint8).reshape(rows, count, 2), packed], axis=-1)
    return np.ascontiguousarray(blocks.reshape(rows, -1))


def codes_note(file: str, folder: ModelFolder, settings: GgufSettings, kind: str) -> str:
    """Return what a file of a quantised model has of its codes, for users."""
    if not holds_codes(folder, kind):
        return f"{file} rounds the dequantised weights once more, to its own grid."
    counts: Counter[bool] = Counter()
    change = 0.0
    for each in stored_tensors(folder, settings, kind):
        if all(isinstance(entry, QuantisedEntry) for entry in each.placed.entries):
            counts[each.has_codes] += 1
            change = max(change, each.scale_change)
    scales = "their scales" if not change else f"scales that float16 rounds by up to {change:.2%}"
    note = f"{file} holds the codes of {counts[True]} of {counts.total()} quantised matrices as they are, with {scales}"
    return f"{note}; the other matrices are rounded to {NEAR_EXACT} or {FIRST}."


def _has_codes(entry: TensorEntry, most_bits: int) -> bool:
    return isinstance(entry, QuantisedEntry) and entry.bits is not None and entry.bits <= most_bits


def _read_codes(entry: TensorEntry) -> Floats:
    assert isinstance(entry, QuantisedEntry)
    codes: Floats = read_codes(entry)[0].float().numpy()
    return codes


def _read_scales(entry: TensorEntry) -> Floats:
    assert isinstance(entry, QuantisedEntry)
    scales: Floats = read_codes(entry)[1].float().numpy()
    return scales


def _scale_change(placed: PlacedTensor, settings: GgufSettings) -> float:
    scales = read_placed(placed, settings, _read_scales)
    with np.errstate(over="ignore"):
        stored = scales.astype(np.float16).astype(np.float32)
    return float(np.max(np.abs(stored - scales) / np.abs(scales)))
