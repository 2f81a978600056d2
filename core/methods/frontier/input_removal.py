"""Removal of a layer's inputs by Optimal Brain Surgeon, and the fit of what is left of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.pruning.compensation.column_update import damped_cholesky
from core.engine.pruning.compensation.refit import ridge_directions, target_product
from core.engine.pruning.input_statistics import InputStatistic
from core.engine.pruning.units.block_tokens import BlockToPrune
from core.methods.frontier.structured_info import StructuredFrontierParameters

_AT_ONCE = 32
"""Number of single inputs that go in one step; groups of several go one by one."""


def output_metric(
    parameters: StructuredFrontierParameters, block: BlockToPrune, name: str, like: Tensor
) -> Tensor | None:
    """Return the metric of the outputs of a weight, on the device of another tensor; None: all count alike."""
    return block.planned[name].to(like.device) if parameters.metric else None


@dataclass(frozen=True)
class InputRemoval:
    """A layer's weights, zero where inputs go, the units that stay and the places of what they give.

    `energy` is the error of the outputs by their metric, over all tokens; None where there is no metric.
    """

    weight_OI: Tensor
    kept: list[int]
    features: Tensor
    energy: float | None


def without_inputs(
    dense_OI: Tensor,
    inputs: InputStatistic,
    parameters: StructuredFrontierParameters,
    *,
    units: int,
    keep: int,
    features: Callable[[Tensor], Tensor],
    metric_OO: Tensor | None,
    note: Callable[[str], None],
    refit: float = 1.0,
) -> InputRemoval:
    """Remove all but `keep` of so many units of a layer's inputs, and fit it to its target, or to what lies between.

    `features` has the places of what units give. `refit` is α: the layer is fitted to α of its target and 1 − α of what
    its weights give of the inputs it has now.
    """
    gram_II = inputs.gram_II
    given_OI = dense_OI @ gram_II
    target_OI = torch.lerp(given_OI, target_product(dense_OI, inputs), refit)
    lower_II, dead_I = damped_cholesky(gram_II, parameters.damping, note)
    inverse_II = torch.cholesky_inverse(lower_II)
    del lower_II
    weight_OI = dense_OI + (target_OI - given_OI) @ inverse_II
    del given_OI
    best_OI = weight_OI.clone()
    weight_OI[:, dead_I] = 0  # whatever is multiplied by them, their loss costs nothing
    size = weight_OI.shape[1] // units
    kept = remove_groups(
        weight_OI,
        inverse_II,
        metric_OO,
        size=size,
        keep=keep,
        at_once=_AT_ONCE if size == 1 else 1,
    )
    left_I = features(torch.tensor(kept)).to(weight_OI.device)
    left_OI, gram_LL = weight_OI[:, left_I], gram_II[left_I][:, left_I]
    missing_OL = target_OI[:, left_I] - left_OI @ gram_LL
    left_OI = left_OI + ridge_directions([missing_OL], gram_LL, parameters.ridge, note)[0]
    left_OI = torch.where(dead_I[left_I], dense_OI[:, left_I], left_OI)
    fitted_OI = torch.zeros_like(dense_OI).index_copy_(1, left_I, left_OI)
    energy = None
    if metric_OO is not None:
        error_OI = best_OI - fitted_OI
        energy_OI = (metric_OO @ error_OI) * (error_OI @ gram_II)
        energy = float(energy_OI.sum(dtype=torch.float64))
    return InputRemoval(fitted_OI, kept, left_I, energy)


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
