"""Solvers, which set weights of linear layers to zero, and ways to round those that stay."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from core.engine.pruning.grid import GridFit, QuantisedWeight
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.masks import LayerTarget, removal_mask
from secateur_wire.base import JsonObject


@dataclass(frozen=True)
class PrunableLinear:
    """Linear layer to prune. `weight_OI` is float32, [out_features, in_features], and must not be changed.

    `index` is the layer's place among all prunable layers of the model; it seeds random numbers.
    """

    name: str
    index: int
    weight_OI: Tensor
    target: LayerTarget


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


class Solver(ABC):
    """One-shot method: pruned weights from linear layers that read one input, and its statistics.

    `statistic` is the level of statistics it reads. It never changes the given weights.
    """

    statistic: ClassVar[Statistic] = Statistic.NONE

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


class ScoreSolver(Solver):
    """Solver that removes the weights of lowest score and leaves the others as they are.

    With `by_row` every output row loses the same number; otherwise all weights of a tensor are compared.
    """

    by_row = False

    @abstractmethod
    def score(self, linear: PrunableLinear, inputs: InputStatistic) -> Tensor:
        """Return the scores of a layer's weights, [out_features, in_features]."""

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        masks = (removal_mask(self.score(linear, inputs), linear.target, by_row=self.by_row) for linear in linears)
        return [linear.weight_OI.masked_fill(mask_OI, 0) for linear, mask_OI in zip(linears, masks, strict=True)]
