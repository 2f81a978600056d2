"""ADMM pruning (Boža 2024, arXiv:2401.02938): the mask and the weights of a layer are optimised together."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from core.engine.models.precision import bfloat16_matmul
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.masks import removal_mask
from core.engine.pruning.protocols.layerwise import Method
from core.engine.pruning.targets import LayerTarget, PrunableLinear
from core.methods.descriptions.zeros import ADMMParameters

_RAMP = 0.75
"""Share of the iterations over which sparsity rises to its target, by a cubic schedule."""
_SAMPLE = 2**13
"""Number of weights that are sampled to estimate the threshold of an iteration."""


class ADMM(Method):
    """ADMM for the minimum of ‖X(W − Z)ᵀ‖² over sparse Z.

    Each iteration solves for V near Z, sets Z to V + U without its smallest weights, and adds V − Z to U. Inputs are
    scaled to norm 1. Therefore the smallest weights here have the lowest Wanda scores.
    """

    statistic = Statistic.GRAM

    def __init__(self, parameters: ADMMParameters) -> None:
        self.iterations = parameters.iterations
        self.penalty = parameters.penalty

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        norms_I = inputs.norms_I
        norms_I = torch.where(norms_I > 0, norms_I, 1)
        gram_II = inputs.gram_II / (norms_I * norms_I.unsqueeze(1))
        gram_II.diagonal().clamp_(min=0)
        damped_II = gram_II.clone()
        damped_II.diagonal().add_(self.penalty)
        lower_II, failed = torch.linalg.cholesky_ex(damped_II)
        del damped_II
        # Inputs that are not finite make every weight NaN. The weights are checked when rows are read: a check here
        # would wait for the device.
        lower_II.masked_fill_(failed != 0, torch.nan)
        inverse_II = torch.cholesky_inverse(lower_II)
        del lower_II
        with bfloat16_matmul(gram_II.device):  # the next iteration corrects rounding errors
            return [
                self._solve(linear.weight_OI * norms_I, gram_II, inverse_II, linear.target) / norms_I
                for linear in linears
            ]

    def _solve(self, weight_OI: Tensor, gram_II: Tensor, inverse_II: Tensor, target: LayerTarget) -> Tensor:
        """Return Z for a layer whose inputs have norm 1; Z has the target's number of zeros."""
        if target.keeps_all(weight_OI.numel()):
            return weight_OI
        total = target.of_tensor(weight_OI.numel())
        wanted_OI = weight_OI @ gram_II
        sum_OI = weight_OI
        for iteration in range(1, self.iterations):
            left = max(0.0, 1 - iteration / (_RAMP * self.iterations))
            sparse_OI = _zero_smallest(sum_OI, target, round(total * (1 - left**3)))
            # `sum_OI` is V + U of the last iteration and U is V + U − Z. So Z − U equals 2Z − (V + U).
            solved_OI = torch.add(wanted_OI, 2 * sparse_OI - sum_OI, alpha=self.penalty) @ inverse_II
            sum_OI = solved_OI.add_(sum_OI).sub_(sparse_OI)
            del sparse_OI
        del wanted_OI
        return sum_OI.masked_fill(removal_mask(sum_OI.abs(), target, by_row=False), 0)


def _zero_smallest(weight_OI: Tensor, target: LayerTarget, count: int) -> Tensor:
    """Set about `count` of the smallest weights to zero; with an n:m pattern, exactly the weights that it removes.

    An approximate count is enough, because the last iteration computes the exact mask.
    """
    if target.pattern.of is not None:
        return weight_OI.masked_fill(removal_mask(weight_OI.abs(), target, by_row=False), 0)
    sample = weight_OI.reshape(-1)[:: max(1, weight_OI.numel() // _SAMPLE)].abs()
    rank = round(count / weight_OI.numel() * len(sample))
    if not rank:
        return weight_OI
    threshold = sample.kthvalue(rank).values  # stays on the device
    return weight_OI.masked_fill(weight_OI.abs() <= threshold, 0)
