"""Method `none`, which prunes nothing: the pass measures the model and counts its zeros.

It is the dense model that pruned ones are compared with at the same size, as Blalock 2020 (arXiv:2003.03033) asks for.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.protocols.layerwise import Method
from core.engine.pruning.targets import PrunableLinear
from core.methods.descriptions.unpruned import NoParameters


class Identity(Method):
    """Identity: every weight stays as it is."""

    statistic = Statistic.NONE

    def __init__(self, parameters: NoParameters) -> None:
        pass

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        return [linear.weight_OI for linear in linears]
