"""Comparison of the weights of two checkpoints: bit by bit, and where they are zero."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from core.engine.checkpoints.safetensors_header import TensorEntry, read_header

_UNSIGNED: Final = {"F64": np.uint64, "F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}


@dataclass(frozen=True)
class WeightComparison:
    """Two checkpoints with the same tensors: how many there are, how many weights, and how far they are alike.

    `equal_tensors` are equal to the last bit. `equal_masks` counts the weights that are zero in both or in neither.
    """

    tensors: int
    equal_tensors: int
    weights: int
    equal_masks: int

    @property
    def is_equal(self) -> bool:
        """Return whether all weights are equal to the last bit."""
        return self.equal_tensors == self.tensors

    @property
    def mask_share(self) -> float:
        """Return the share of the weights that are zero in both or in neither."""
        return self.equal_masks / self.weights if self.weights else 1.0


def compare_weights(first: Path, second: Path, *, is_part: bool = False) -> WeightComparison:
    """Compare the safetensors files of two folders; if `is_part`, the second has some of the first's tensors alone.

    Raises ValueError that names a tensor which only one has, or which has another dtype or shape in the other: the
    models then have different shapes. Raises CorruptSafetensors.
    """
    ours, theirs = _entries(first), _entries(second)
    if is_part:
        ours = {name: entry for name, entry in ours.items() if name in theirs}
    for name in sorted(ours.keys() | theirs.keys()):
        described = [
            "none" if entry is None else f"{entry.dtype} {list(entry.shape)}"
            for entry in (ours.get(name), theirs.get(name))
        ]
        if described[0] != described[1]:
            raise ValueError(f"{name} is {described[0]} in one and {described[1]} in the other")
    equal_tensors = weights = equal_masks = 0
    for name, entry in ours.items():
        bits, others = _bits(entry), _bits(theirs[name])
        is_equal = bool(np.array_equal(bits, others))
        equal_tensors += is_equal
        weights += entry.numel
        # Without the sign bit, so that the two zeros of a float are one. Of integers only equal ones count as alike.
        is_float = entry.dtype in _UNSIGNED
        equal_masks += (
            entry.numel if is_equal else int(np.sum((bits << 1 == 0) == (others << 1 == 0))) if is_float else 0
        )
    return WeightComparison(len(ours), equal_tensors, weights, equal_masks)


def _entries(folder: Path) -> dict[str, TensorEntry]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has no weights in safetensors files")
    return {name: entry for file in files for name, entry in read_header(file).items()}


def _bits(entry: TensorEntry) -> np.ndarray:
    """Return the bits of a tensor as unsigned integers, mapped from the file."""
    kind = np.dtype(_UNSIGNED.get(entry.dtype, np.uint8))
    return np.memmap(entry.file, dtype=kind, mode="r", offset=entry.start, shape=(entry.nbytes // kind.itemsize,))
