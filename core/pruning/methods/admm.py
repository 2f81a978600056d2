"""ADMM pruning (Boža 2024, arXiv:2401.02938): mask and weights of a layer found together, step by step."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from core.catalogue.parameters import ADMMParameters, Selection
from core.errors import RunFailed
from core.pruning.group import PrunableLinear, Target
from core.pruning.masks import removal_mask
from core.pruning.methods.method import Method
from core.pruning.statistics import InputStatistic, Statistic

_RAMP = 0.75
"""Share of the iterations over which sparsity rises to its target, cubically."""


class ADMM(Method):
    """Minimise ‖X(W − Z)ᵀ‖² over sparse Z: V is solved for near Z, Z is V + U without its smallest weights, U sums up
    what they differ by. Inputs are scaled to norm 1, so that the smallest weights are those of Wanda's score."""

    statistic = Statistic.GRAM

    def __init__(self, parameters: Selection) -> None:
        assert isinstance(parameters, ADMMParameters)
        self.iterations = parameters.iterations
        self.penalty = parameters.penalty

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        norms_I = inputs.norms_I
        norms_I = torch.where(norms_I > 0, norms_I, 1)
        gram_II = inputs.gram_II / (norms_I * norms_I.unsqueeze(1))
        gram_II.diagonal().clamp_(min=0)
        damped_II = gram_II + self.penalty * torch.eye(len(gram_II), dtype=gram_II.dtype, device=gram_II.device)
        lower_II, failed = torch.linalg.cholesky_ex(damped_II)
        if failed or not torch.isfinite(lower_II).all():
            raise RunFailed(f"{linears[0].name}: its inputs are not finite, there is nothing to solve for")
        inverse_II = torch.cholesky_inverse(lower_II)
        return [
            self._solve(linear.weight_OI * norms_I, gram_II, inverse_II, linear.target) / norms_I for linear in linears
        ]

    def _solve(self, weight_OI: Tensor, gram_II: Tensor, inverse_II: Tensor, target: Target) -> Tensor:
        """Of a layer whose inputs have norm 1: Z with the target's zeros."""
        if target.pattern.of is None and target.of_tensor(weight_OI.numel()) == 0:
            return weight_OI
        wanted_OI = weight_OI @ gram_II
        sparse_OI = solved_OI = weight_OI
        multiplier_OI = torch.zeros_like(weight_OI)
        for iteration in range(1, self.iterations + 1):
            left = max(0.0, 1 - iteration / (_RAMP * self.iterations))
            whole_OI = solved_OI + multiplier_OI
            removed_OI = removal_mask(whole_OI.abs(), _risen(target, 1 - left**3, whole_OI.numel()), by_row=False)
            sparse_OI = whole_OI.masked_fill(removed_OI, 0)
            multiplier_OI = whole_OI - sparse_OI
            if iteration < self.iterations:
                solved_OI = (wanted_OI + self.penalty * (sparse_OI - multiplier_OI)) @ inverse_II
        return sparse_OI


def _risen(target: Target, share: float, numel: int) -> Target:
    """The target, of n:m whole, of any other so much of it as the share says."""
    if target.pattern.of is not None or share == 1:
        return target
    return replace(target, count=round(share * target.of_tensor(numel)))
