"""ALPS (Meng, Behdin, Wang & Mazumder 2024, arXiv:2406.07831): ADMM on the l0 constraint, then conjugate gradients."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from core.engine.pruning.compensation.refit import conjugate_gradient
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.masks import removal_mask
from core.engine.pruning.protocols.layerwise import Method
from core.engine.pruning.targets import LayerTarget, PrunableLinear
from core.methods.alps.info import ALPSParameters
from secateur_wire.errors import RunFailed

_CHECK_EVERY = 3
"""Number of iterations between two checks of how much the support has changed."""
_LEAST_CHANGE = 0.005
"""Share of the support that must change between two checks; if less changes from the start, ρ is too large."""
_GROWTH = ((0.1, 1.3), (_LEAST_CHANGE, 1.2), (0.0, 1.1))
"""Factors of ρ: the first pair whose share is below the share of the support that changed gives the factor."""
_CONVERGED_CHANGE = 3e-4
"""Share of the support below which a change counts as converged, after `_LEAST_ITERATIONS` iterations."""
_LEAST_ITERATIONS = 30
_PENALTY_DIVISOR = 5
"""Divisor of ρ when the support hardly changes from the start.

At low sparsity the support cannot change much. Therefore ρ grows from its reduced value after `_LEAST_ITERATIONS`
iterations.
"""


class ALPS(Method):
    """ALPS for the minimum of ‖X(Ŵ − W)ᵀ‖² over W with at most k weights; Ŵ are the dense weights and H = XᵀX.

    Operator splitting finds the support: W = (ŴH − V + ρD)(H + ρI)⁻¹, D is W + V/ρ without its smallest weights, and V
    grows by ρ(W − D). H is decomposed once, so that the inverse for any ρ is cheap. ρ grows by a factor that depends on
    how much of the support still changes. Conjugate gradients then solve for the weights of that support, all rows at a
    time. Inputs are scaled to norm 1, so that the preconditioner, the diagonal of H, is 1.
    """

    statistic = Statistic.GRAM

    def __init__(self, parameters: ALPSParameters) -> None:
        self.damping = parameters.damping
        self.penalty = parameters.penalty
        self.iterations = parameters.iterations
        self.conjugate_gradient_steps = parameters.conjugate_gradient_steps

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        if not torch.isfinite(inputs.gram_II).all():
            raise RunFailed(
                f"{linears[0].name}: its inputs are infinite or not a number, so there is nothing to solve for"
            )
        gram_II, norms_I = self._scaled(inputs.gram_II)
        spectrum = Spectrum(gram_II)
        pruned = []
        for linear in linears:
            dense_OI = linear.weight_OI * norms_I
            if linear.target.keeps_all(dense_OI.numel()):
                pruned.append(linear.weight_OI)
                continue
            goal_OI = dense_OI @ gram_II
            solved_OI = self._split(dense_OI, goal_OI, spectrum, linear.target)
            removed_OI = removal_mask(solved_OI.abs(), linear.target, by_row=False)
            solved_OI = solved_OI.masked_fill_(removed_OI, 0)
            fitted_OI, _ = conjugate_gradient(dense_OI, solved_OI, gram_II, self.conjugate_gradient_steps)
            pruned.append(fitted_OI / norms_I)
        return pruned

    def _scaled(self, gram_II: Tensor) -> tuple[Tensor, Tensor]:
        """Return H, damped and scaled to a diagonal of 1, and the divisor of each input."""
        damped_II = gram_II.clone()
        diagonal_I = damped_II.diagonal()
        diagonal_I += self.damping * diagonal_I.mean()
        norms_I = diagonal_I.sqrt()
        norms_I = torch.where(norms_I > 0, norms_I, 1)
        damped_II /= norms_I * norms_I.unsqueeze(1)
        return damped_II, norms_I

    def _split(self, dense_OI: Tensor, goal_OI: Tensor, spectrum: "Spectrum", target: LayerTarget) -> Tensor:
        """Return W of the last iteration; it is dense, and its largest weights are the support."""
        kept = max(1, dense_OI.numel() - target.of_tensor(dense_OI.numel()))
        penalty, has_moved = self.penalty, False
        inverse_II = spectrum.inverse(penalty)
        first_OI = before_OI = removal_mask(dense_OI.abs(), target, by_row=False)
        sparse_OI, dual_OI = dense_OI.masked_fill(first_OI, 0), torch.zeros_like(dense_OI)
        solved_OI = dense_OI
        for iteration in range(1, self.iterations + 1):
            solved_OI = torch.add(goal_OI - dual_OI, sparse_OI, alpha=penalty) @ inverse_II
            sparse_OI = torch.add(solved_OI, dual_OI, alpha=1 / penalty)
            removed_OI = removal_mask(sparse_OI.abs(), target, by_row=False)
            sparse_OI.masked_fill_(removed_OI, 0)
            dual_OI += penalty * (solved_OI - sparse_OI)
            if iteration % _CHECK_EVERY:
                continue
            changed = int((removed_OI ^ before_OI).sum()) / kept
            before_OI = removed_OI
            if iteration >= _LEAST_ITERATIONS and changed < _CONVERGED_CHANGE:
                break
            has_moved = has_moved or changed > _LEAST_CHANGE or iteration >= _LEAST_ITERATIONS
            if not has_moved:
                penalty /= _PENALTY_DIVISOR
                before_OI = first_OI
                sparse_OI, dual_OI = dense_OI.masked_fill(first_OI, 0), torch.zeros_like(dense_OI)
            elif changed:
                penalty *= next(factor for share, factor in _GROWTH if changed > share)
            else:
                break
            inverse_II = spectrum.inverse(penalty)
        return solved_OI


class Spectrum:
    """Eigenvalues and eigenvectors of a symmetric matrix H in float64, from which (H + ρI)⁻¹ follows for any ρ."""

    def __init__(self, matrix_II: Tensor) -> None:
        self.dtype = matrix_II.dtype
        self.values_I, self.vectors_II = torch.linalg.eigh(matrix_II.double())
        self.values_I.clamp_(min=0)

    def inverse(self, penalty: float) -> Tensor:
        """Return (H + ρI)⁻¹."""
        inverse_II: Tensor = self.vectors_II / (self.values_I + penalty) @ self.vectors_II.T
        return inverse_II.to(self.dtype)
