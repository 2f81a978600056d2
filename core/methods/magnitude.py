"""Magnitude pruning (Han, Pool, Tran, Dally 2015, arXiv:1506.02626): removal of the weights of smallest |w|."""

from collections.abc import Callable, Sequence

from torch import Tensor

from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.masks import removal_mask
from core.engine.pruning.protocols.layerwise import Method
from core.engine.pruning.saliency import magnitude
from core.engine.pruning.targets import PrunableLinear
from core.methods.descriptions.zeros import MagnitudeParameters


class Magnitude(Method):
    """Score |W_ij|, compared within a row, a tensor or the entire model; the targets hold the model's counts."""

    statistic = Statistic.NONE

    def __init__(self, parameters: MagnitudeParameters) -> None:
        self.by_row = parameters.scope == "row"

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        return [
            linear.weight_OI.masked_fill(
                removal_mask(magnitude(linear.weight_OI), linear.target, by_row=self.by_row), 0
            )
            for linear in linears
        ]
