"""Roundings of weights, which need torch: to the nearest code, and GPTQ (Frantar et al. 2022, arXiv:2210.17323)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from core.engine.pruning.compensation.column_update import Columns, damped_inverse_factor
from core.engine.pruning.grid import GridFit, QuantisedWeight
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.solver import Quantiser
from core.engine.quantization.settings import bits_of
from secateur_wire.job_body import Quantization

_DAMPING = 0.01
_BLOCK_SIZE = 128
_Note = Callable[[str], None]


class Nearest(Quantiser):
    """Rounding of each weight for itself, whatever its inputs are; the scales clip no weight."""

    statistic = Statistic.NONE

    def round(self, weights: Sequence[Tensor], inputs: InputStatistic, note: _Note) -> list[QuantisedWeight]:
        fit = self.fit(inputs)
        return [QuantisedWeight.of(weight_OI, fit.grid_of(weight_OI), weight_OI == 0) for weight_OI in weights]


class GPTQ(Quantiser):
    """Column updates with damped H = 2XᵀX / tokens and UᵀU = H⁻¹; scales with the least error weighted by diag H.

    A row whose outputs are nearer when each of its weights is rounded to nearest is rounded so.
    """

    statistic = Statistic.GRAM
    spreads_errors = True

    def round(self, weights: Sequence[Tensor], inputs: InputStatistic, note: _Note) -> list[QuantisedWeight]:
        fit = self.fit(inputs)
        factor_II, _ = damped_inverse_factor(inputs.gram_II * (2 / inputs.tokens), _DAMPING, note)
        rounded = Columns(weights, factor_II, fit).round(block_size=_BLOCK_SIZE).quantised
        pairs = zip(weights, rounded, strict=True)
        return [_better_rows(weight_OI, each, fit, inputs.gram_II) for weight_OI, each in pairs]


CLASSES: Final[dict[str, type[Quantiser]]] = {"gptq": GPTQ, "nearest": Nearest}
"""Class of each rounding of the settings."""


def rounding_for(chosen: Quantization, dtype: torch.dtype) -> Quantiser:
    """Return the rounding of a job whose choices are complete; its scales are saved in `dtype`."""
    assert chosen.rounding is not None
    return CLASSES[chosen.rounding](bits=bits_of(chosen), group_size=chosen.group_size, dtype=dtype)


def _better_rows(weight_OI: Tensor, rounded: QuantisedWeight, fit: GridFit, gram_II: Tensor) -> QuantisedWeight:
    """Return, row by row, the weights with the smaller ‖(w − ŵ)Xᵀ‖²: GPTQ's, or those rounded to nearest."""
    grid = fit.grid_of(weight_OI)
    nearest = replace(rounded, grid=grid, codes_OI=grid.codes_of(weight_OI))
    differences = (weight_OI - each.weight_OI.float() for each in (rounded, nearest))
    own_O, nearest_O = (((each_OI @ gram_II) * each_OI).sum(dim=1) for each_OI in differences)
    is_better_O = own_O <= nearest_O
    scales_GO = torch.where(is_better_O, rounded.grid.scales_GO, grid.scales_GO)
    codes_OI = torch.where(is_better_O.unsqueeze(1), rounded.codes_OI, nearest.codes_OI)
    return replace(rounded, codes_OI=codes_OI, grid=fit.grid(scales_GO))
