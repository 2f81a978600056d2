"""Interface of a way to round weights to the codes of a quantised model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from core.engine.pruning.grid import GridFit, QuantisedWeight
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from secateur_wire.base import JsonObject


@dataclass(frozen=True)
class Quantiser(ABC):
    """Rounding of linear layers that read one input to codes of `bits`, with scales in `dtype`.

    There is a scale for each row in each group of `group_size` columns (None: one for the whole row). `statistic` is
    the level of the inputs' statistics it reads. With `spreads_errors` the error of a column is passed on to the later
    ones, so that a method that goes through the columns too can do both at once.
    """

    statistic: ClassVar[Statistic]
    spreads_errors: ClassVar[bool] = False

    bits: int
    group_size: int | None
    dtype: torch.dtype

    @abstractmethod
    def round(
        self, weights: Sequence[Tensor], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[QuantisedWeight]:
        """Return the rounded weights, float32 [out_features, in_features]; zeros stay zero, and none is changed.

        `note` adds a line to the report.
        """

    @property
    def facts(self) -> JsonObject:
        """Return the choices that change the numbers of a pass."""
        return {"quantiser": type(self).__name__, "bits": self.bits, "group_size": self.group_size}

    def fit(self, inputs: InputStatistic) -> GridFit:
        """Return the fit of grids to weights, and to their inputs where the statistics of these are read."""
        squares_I = None if self.statistic is Statistic.NONE else inputs.norms_I.square()
        return GridFit(self.bits, self.group_size, self.dtype, squares_I)
