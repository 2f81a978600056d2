"""Types of GGUF files: how they store matrices, and how far predictions may differ from the artifact's."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class FileType:
    """Type of file. `number` is llama.cpp's `llama_ftype`, `block` the number of weights that share a scale.

    A weight takes about `weight_bytes`.

    `most_kl` is the upper bound of the mean KL divergence in nats; None where the figure is only reported. With
    `is_mixed`, llama.cpp chooses among several types for each matrix, and writes the file.
    """

    number: int
    weight_bytes: float
    block: int = 1
    most_kl: float | None = None
    is_mixed: bool = False


FILE_TYPES: Final = {
    "F16": FileType(1, 2, most_kl=1e-3),
    "Q8_0": FileType(7, 1.0625, block=32, most_kl=1e-2),
    "Q6_K": FileType(18, 0.83, block=256, is_mixed=True),
    "Q5_K_M": FileType(17, 0.72, block=256, is_mixed=True),
    "Q4_K_M": FileType(15, 0.62, block=256, is_mixed=True),
}
EXACT: Final = "F32"
"""Type without rounding. No job requests it; it separates mistakes of the writer from rounding."""
ALL_TYPES: Final = {EXACT: FileType(0, 4, most_kl=1e-5)} | FILE_TYPES
FIRST: Final = "F16"
"""Type that is written and compared with the artifact before any other; mixed types are made from it."""
