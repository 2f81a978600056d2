"""SparseGPT (Frantar & Alistarh 2023, arXiv:2301.00774): pruning by columns, with updates of the remaining weights."""

from collections.abc import Callable, Sequence

from torch import Tensor

from core.engine.pruning.compensation.column_update import (
    damped_inverse_factor,
    prune_and_round_columns,
    prune_columns,
)
from core.engine.pruning.grid import QuantisedWeight
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.protocols.layerwise import Method
from core.engine.pruning.protocols.quantiser import Quantiser
from core.engine.pruning.targets import PrunableLinear
from core.methods.descriptions.zeros import SparseGPTParameters


class SparseGPT(Method):
    """Column updates with damped H = 2XᵀX / tokens and UᵀU = H⁻¹; masks by w²/U_jj², updates by algorithm 1.

    A quantised model is rounded in the same pass over the columns (section 3.5).
    """

    statistic = Statistic.GRAM

    def __init__(self, parameters: SparseGPTParameters) -> None:
        self.block_size = parameters.block_size
        self.damping = parameters.damping

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        factor_II, dead_I = self._factor(linears, inputs, note)
        return prune_columns(
            [linear.weight_OI for linear in linears],
            [linear.target for linear in linears],
            factor_II,
            dead_I,
            block_size=self.block_size,
        )

    def prune_and_round(
        self,
        linears: Sequence[PrunableLinear],
        inputs: InputStatistic,
        rounding: Quantiser,
        note: Callable[[str], None],
    ) -> list[QuantisedWeight]:
        if not rounding.spreads_errors:
            return super().prune_and_round(linears, inputs, rounding, note)
        factor_II, dead_I = self._factor(linears, inputs, note)
        return prune_and_round_columns(
            [linear.weight_OI for linear in linears],
            [linear.target for linear in linears],
            factor_II,
            dead_I,
            rounding.fit(inputs),
            block_size=max(self.block_size, rounding.group_size or 0),
        )

    def _factor(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> tuple[Tensor, Tensor]:
        return damped_inverse_factor(
            inputs.gram_II * (2 / inputs.tokens), self.damping, lambda text: note(f"{linears[0].name}: {text}")
        )
