"""Sizes of a pruned model, as functions of the sparsity."""

from dataclasses import dataclass
from typing import Literal

from core.engine.architectures.description import Description
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES

Figure = Literal["parameters", "bytes"]


@dataclass(frozen=True)
class SizeScale:
    """Size of the artifact as a linear function of the sparsity s: `start − slope·s`.

    `margin` is added to a sparsity that counts weights, since every row may round it down by half a weight.
    """

    start: float
    slope: float
    margin: float = 0.0

    def sparsity_of(self, figure: float) -> float:
        return (self.start - figure) / self.slope + self.margin

    def figure_of(self, sparsity: float) -> int:
        return round(self.start - self.slope * sparsity)


def scale_of_parameters(description: Description, figure: Figure) -> SizeScale:
    """Return the scale of the remaining parameters, or of their bytes, where a sparsity is a share of them."""
    if figure == "parameters":
        return SizeScale(description.parameters, description.parameters)
    return SizeScale(description.bytes, description.parameters * WEIGHT_BYTES[description.dtype])
