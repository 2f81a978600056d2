"""Wanda (Sun, Liu, Bair, Kolter 2023, arXiv:2306.11695): scores from weights and activations, no weight update."""

from collections.abc import Callable, Sequence

from torch import Tensor

from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.masks import removal_mask
from core.engine.pruning.protocols.layerwise import Method
from core.engine.pruning.saliency import cumulative_row_share, weight_times_norm
from core.engine.pruning.targets import PrunableLinear
from core.methods.descriptions.zeros import WandaParameters


class Wanda(Method):
    """Score |W_ij|·‖X_j‖₂ (eq. 1); the lowest s·d_in of every output row are removed (algorithm 1).

    The variant compares the rows with one another by the cumulative share of their scores, see `cumulative_row_share`.
    """

    statistic = Statistic.NORMS

    def __init__(self, parameters: WandaParameters) -> None:
        self.variant = parameters.variant

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        return [linear.weight_OI.masked_fill(self._mask(linear, inputs.norms_I), 0) for linear in linears]

    def _mask(self, linear: PrunableLinear, norms_I: Tensor) -> Tensor:
        score_OI = weight_times_norm(linear.weight_OI, norms_I)
        if self.variant and not linear.target.pattern.is_n_m:
            return removal_mask(cumulative_row_share(score_OI), linear.target, by_row=False)
        return removal_mask(score_OI, linear.target, by_row=True)
