"""Random pruning, the baseline (Liu 2022, arXiv:2202.02643): all weights of a tensor are equally likely to go."""

from collections.abc import Callable, Sequence

from torch import Tensor

from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.masks import removal_mask
from core.engine.pruning.protocols.layerwise import Method
from core.engine.pruning.saliency import random
from core.engine.pruning.targets import PrunableLinear
from core.methods.descriptions.zeros import RandomParameters


class Random(Method):
    """Score from U[0, 1), seeded by the job's seed and the layer's index."""

    statistic = Statistic.NONE

    def __init__(self, parameters: RandomParameters) -> None:
        self.seed = parameters.seed

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        return [
            linear.weight_OI.masked_fill(
                removal_mask(
                    random(linear.weight_OI, self.seed * 1_000_003 + linear.index), linear.target, by_row=False
                ),
                0,
            )
            for linear in linears
        ]
