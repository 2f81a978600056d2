"""Types of GGUF files: how they store matrices, and how far predictions may differ from the artifact's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class FileType:
    """Type of file. `number` is llama.cpp's `llama_ftype`, `block` the number of weights that share a scale.

    A weight takes `weight_bytes`, about so many where the type is mixed.

    `most_kl` is the upper bound of the mean KL divergence in nats; None where the figure is only reported. `mixes` are
    the types among which llama.cpp chooses for each matrix; it then writes the file. `code_bits` are the bits of
    the codes of quantised weights that the type holds as they are; None for types with grids of another kind.
    """

    number: int
    weight_bytes: float
    block: int = 1
    most_kl: float | None = None
    mixes: tuple[str, ...] = ()
    code_bits: int | None = None

    @property
    def is_mixed(self) -> bool:
        return bool(self.mixes)


FILE_TYPES: Final = {
    "F16": FileType(1, 2, most_kl=1e-3),
    "Q8_0": FileType(7, 1.0625, block=32, most_kl=1e-2, code_bits=8),
    "Q6_K": FileType(18, 0.83, block=256, mixes=("Q6_K",)),
    "Q5_K_M": FileType(17, 0.72, block=256, mixes=("Q5_K", "Q6_K")),
    "Q4_K_M": FileType(15, 0.62, block=256, mixes=("Q4_K", "Q5_K", "Q6_K")),
    "Q4_0": FileType(2, 0.5625, block=32, mixes=("Q4_0", "Q4_1", "Q6_K", "Q8_0"), code_bits=4),
}
NEAR_EXACT: Final = "Q8_0"
"""Type of matrices without codes in files of codes: it changes predictions little."""
EXACT: Final = "F32"
"""Type without rounding. No job requests it; it separates mistakes of the writer from rounding."""
ALL_TYPES: Final = {EXACT: FileType(0, 4, most_kl=1e-5)} | FILE_TYPES
FIRST: Final = "F16"
"""Type that is written and compared with the artifact before any other; mixed types are made from it."""


def stored_type(shape: Sequence[int], kind: str) -> str:
    """Return the type of a tensor of this shape in a file whose type is not mixed.

    Vectors are stored in float32; matrices whose rows are not whole blocks of the type are stored in float16.
    """
    if len(shape) == 1:
        return EXACT
    return FIRST if shape[-1] % ALL_TYPES[kind].block else kind


def stored_bytes(shape: Sequence[int], kind: str) -> int:
    """Return the bytes of a tensor of this shape in a file whose type is not mixed; about so many in a mixed file."""
    return round(math.prod(shape) * ALL_TYPES[stored_type(shape, kind)].weight_bytes)
