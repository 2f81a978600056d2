"""Method `recover`, which prunes nothing: the pass measures the model and counts its zeros, then the model is trained.

Training with adapters follows Hu 2021 (arXiv:2106.09685), training with a teacher Hinton 2015 (arXiv:1503.02531).
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.protocols.layerwise import Method
from core.engine.pruning.targets import PrunableLinear
from core.methods.recover.info import RecoverParameters


class Recover(Method):
    """Identity: every weight stays as it is."""

    statistic = Statistic.NONE

    def __init__(self, parameters: RecoverParameters) -> None:
        pass

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        return [linear.weight_OI for linear in linears]
