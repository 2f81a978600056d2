"""`recover`: nothing is pruned. The sweep measures the model and counts its zeros; training follows it."""

from collections.abc import Callable, Sequence

from torch import Tensor

from core.catalogue.parameters import RecoverParameters, Selection
from core.pruning.group import PrunableLinear
from core.pruning.methods.method import Method
from core.pruning.statistics import InputStatistic, Statistic


class Recover(Method):
    """Every weight stays as it is."""

    statistic = Statistic.NONE

    def __init__(self, parameters: Selection) -> None:
        assert isinstance(parameters, RecoverParameters)

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        return [linear.weight_OI for linear in linears]
