"""Rounding to nearest: each weight gets the nearest code, whatever its inputs are."""

from collections.abc import Callable, Sequence

from torch import Tensor

from core.engine.pruning.grid import QuantisedWeight
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.solver import Quantiser


class Nearest(Quantiser):
    """Rounding of each weight for itself; the scales clip no weight."""

    statistic = Statistic.NONE

    def round(
        self, weights: Sequence[Tensor], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[QuantisedWeight]:
        fit = self.fit(inputs)
        return [QuantisedWeight.of(weight_OI, fit.grid_of(weight_OI), weight_OI == 0) for weight_OI in weights]
