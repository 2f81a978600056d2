"""Interface of a one-shot method."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor

from core.engine.options.base import MethodParameters
from core.engine.pruning.grid import QuantisedWeight
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.protocols.quantiser import Quantiser
from core.engine.pruning.targets import PrunableLinear


class Method(ABC):
    """One-shot method: pruned weights from linear layers that read one input, and its statistics.

    `statistic` is the level of statistics it reads. It never changes the given weights.
    """

    statistic: ClassVar[Statistic]

    @abstractmethod
    def __init__(self, parameters: MethodParameters) -> None: ...

    @abstractmethod
    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        """Return pruned weights, float32 [out_features, in_features], in the order of `linears`.

        `note` adds a line to the report.
        """

    def prune_and_round(
        self,
        linears: Sequence[PrunableLinear],
        inputs: InputStatistic,
        rounding: Quantiser,
        note: Callable[[str], None],
    ) -> list[QuantisedWeight]:
        """Return the pruned weights of a quantised model: by default pruned first, then rounded."""
        return rounding.round(self.prune(linears, inputs, note), inputs, note)
