"""Removal of a linear layer's input features with the best update of the others, as Optimal Brain Surgeon has it.

With the inputs X and H = XᵀX + λI, the error of weights V in place of W [out, in] is tr((V − W)H(V − W)ᵀ).
"""

import torch
from torch import Tensor

DAMPING = 0.01


def damped(moments: Tensor, damping: float = DAMPING) -> Tensor:
    """H: λ is a share of the mean of the inputs' squares."""
    return moments + damping * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)


def inverse(hessian: Tensor) -> Tensor:
    """Return the inverse of a symmetric positive definite matrix."""
    return torch.cholesky_inverse(torch.linalg.cholesky(hessian))


def error(original: Tensor, hessian: Tensor, weight: Tensor) -> float:
    """tr((V − W)H(V − W)ᵀ)."""
    change = weight - original
    return float(((change @ hessian) * change).sum())


def refit(original: Tensor, hessian: Tensor, kept: Tensor) -> Tensor:
    """The V that errs least among those with zeros outside the features `kept`: V_S = W·H_·S·(H_SS)⁻¹."""
    factor = torch.linalg.cholesky(hessian[kept][:, kept])
    weight = torch.zeros_like(original)
    weight[:, kept] = torch.cholesky_solve((original @ hessian[:, kept]).T, factor).T
    return weight


def remove_in_groups(weight: Tensor, hessian: Tensor, count: int, largest: int, smallest: int) -> Tensor:
    """The features that are left, ascending, after `count` went in groups: always those of least ‖w_j‖²/[H⁻¹]_jj
    together, the others updated by w ← w − W_R([H⁻¹]_RR)⁻¹[H⁻¹]_R· and H⁻¹ likewise. A group is a quarter of what is
    still to go, within its bounds, so that the last choices are the finest.
    """
    weight, inverted = weight.clone(), inverse(hessian)
    left = torch.ones(weight.shape[1], dtype=torch.bool)
    while count:
        size = min(count, max(smallest, min(largest, count // 4)))
        scores = weight.square().sum(0) / inverted.diagonal()
        group = scores.masked_fill(~left, torch.inf).argsort(stable=True)[:size]
        solved = torch.linalg.solve(inverted[group][:, group], inverted[group])
        weight -= weight[:, group] @ solved
        inverted = inverted - inverted[:, group] @ solved
        left[group] = False
        weight[:, group] = 0.0
        inverted[group, group] = 1.0  # never read again, but divided by
        count -= size
    return left.nonzero()[:, 0]
