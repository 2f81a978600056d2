"""Optimal Brain Surgeon over groups of a layer's inputs: which go, and what becomes of the weights of the others."""

import torch
from torch import Tensor


def remove_groups(
    weight_OI: Tensor,
    inverse_II: Tensor,
    metric_OO: Tensor | None,
    *,
    size: int,
    keep: int,
    at_once: int,
) -> list[int]:
    """Remove groups of `size` adjacent inputs until `keep` are left; return these, ascending.

    What the groups S of a step cost is tr(W_Sᵀ·M·W_S·([H⁻¹]_SS)⁻¹), H⁻¹ the inverse of the damped Gram matrix of the
    inputs that are left, M the metric of the outputs, None: the identity. The `at_once` that cost least, each alone, go
    together: W −= W_S·([H⁻¹]_SS)⁻¹·[H⁻¹]_S:, and likewise H⁻¹. Both are changed in place.
    """
    groups = weight_OI.shape[1] // size
    imaged_OI = weight_OI if metric_OO is None else metric_OO @ weight_OI
    there_U = torch.ones(groups, dtype=torch.bool, device=weight_OI.device)
    offsets_S = torch.arange(size, device=weight_OI.device)
    left = groups
    while left > keep:
        cost_U = _costs(weight_OI, imaged_OI, inverse_II, size).masked_fill(~there_U, torch.inf)
        going = min(at_once, left - keep)
        removed_U = cost_U.argsort(stable=True)[:going]
        features = (removed_U[:, None] * size + offsets_S).flatten()
        spread_SI = torch.linalg.solve(inverse_II[features][:, features], inverse_II[features])
        if imaged_OI is not weight_OI:
            imaged_OI.addmm_(imaged_OI[:, features], spread_SI, alpha=-1)
            imaged_OI[:, features] = 0
        weight_OI.addmm_(weight_OI[:, features], spread_SI, alpha=-1)
        weight_OI[:, features] = 0
        inverse_II.addmm_(inverse_II[:, features], spread_SI, alpha=-1)
        inverse_II[features] = 0
        inverse_II[:, features] = 0
        inverse_II[features, features] = 1
        there_U[removed_U] = False
        left -= going
    return there_U.nonzero().flatten().tolist()


def _costs(weight_OI: Tensor, imaged_OI: Tensor, inverse_II: Tensor, size: int) -> Tensor:
    """Return tr(W_Sᵀ·M·W_S·([H⁻¹]_SS)⁻¹) of each group alone, from W and M·W: [groups]."""
    if size == 1:
        tiny = torch.finfo(inverse_II.dtype).tiny
        return (weight_OI * imaged_OI).sum(dim=0) / inverse_II.diagonal().clamp(min=tiny)
    weight_UOS, imaged_UOS = (each.unflatten(1, (-1, size)).transpose(0, 1) for each in (weight_OI, imaged_OI))
    energy_USS = weight_UOS.transpose(1, 2) @ imaged_UOS
    inverse_USS = torch.stack(
        [inverse_II[start : start + size, start : start + size] for start in range(0, len(inverse_II), size)]
    )
    spread_USS: Tensor = torch.linalg.solve(inverse_USS, energy_USS)
    return spread_USS.diagonal(dim1=1, dim2=2).sum(dim=1)
