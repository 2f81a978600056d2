"""GPTQ (Frantar et al. 2022, arXiv:2210.17323): rounding by columns, with updates of the columns that follow."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from core.engine.pruning.compensation.column_update import Columns, damped_inverse_factor
from core.engine.pruning.grid import GridFit, QuantisedWeight
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.solver import Quantiser

_DAMPING = 0.01
_BLOCK_SIZE = 128


class GPTQ(Quantiser):
    """Column updates with damped H = 2XᵀX / tokens and UᵀU = H⁻¹; scales with the least error weighted by diag H.

    A row whose outputs are nearer when each of its weights is rounded to nearest is rounded so.
    """

    statistic = Statistic.GRAM
    spreads_errors = True

    def round(
        self, weights: Sequence[Tensor], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[QuantisedWeight]:
        fit = self.fit(inputs)
        factor_II, _ = damped_inverse_factor(inputs.gram_II * (2 / inputs.tokens), _DAMPING, note)
        rounded = Columns(weights, factor_II, fit).round(block_size=_BLOCK_SIZE).quantised
        return [
            _better_rows(weight_OI, each, fit, inputs.gram_II) for weight_OI, each in zip(weights, rounded, strict=True)
        ]


def _better_rows(weight_OI: Tensor, rounded: QuantisedWeight, fit: GridFit, gram_II: Tensor) -> QuantisedWeight:
    """Return, row by row, the weights with the smaller ‖(w − ŵ)Xᵀ‖²: GPTQ's, or those rounded to nearest."""
    grid = fit.grid_of(weight_OI)
    nearest = replace(rounded, grid=grid, codes_OI=grid.codes_of(weight_OI))
    errors = []
    for each in (rounded, nearest):
        difference_OI = weight_OI - each.weight_OI.float()
        errors.append(((difference_OI @ gram_II) * difference_OI).sum(dim=1))
    is_better_O = errors[0] <= errors[1]
    scales_GO = torch.where(is_better_O, rounded.grid.scales_GO, grid.scales_GO)
    codes_OI = torch.where(is_better_O.unsqueeze(1), rounded.codes_OI, nearest.codes_OI)
    return replace(rounded, codes_OI=codes_OI, grid=fit.grid(scales_GO))
