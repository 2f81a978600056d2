"""Removal of a layer's inputs by Optimal Brain Surgeon, and the fit of the remaining weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.pruning.compensation.column_update import damped_cholesky
from core.engine.pruning.compensation.refit import ridge_directions, target_product
from core.engine.pruning.input_statistics import InputStatistic
from core.engine.pruning.units.block_tokens import BlockToPrune
from core.methods.descriptions.frontier import StructuredFrontierParameters

_INPUTS_PER_STEP = 32
"""Number of inputs that one step removes where a unit has a single input; larger units are removed one by one."""


def output_metric(
    parameters: StructuredFrontierParameters, block: BlockToPrune, name: str, like: Tensor
) -> Tensor | None:
    """Return the metric of a weight's outputs on the device of `like`; None: all outputs count equally."""
    return block.planned[name].to(like.device) if parameters.metric else None


@dataclass(frozen=True)
class InputRemoval:
    """Weights of a layer with zeros for removed inputs, the kept units, and the positions of their features.

    `energy` is the error of the outputs in their metric, summed over all tokens; None where there is no metric.
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
    """Remove units of a layer's inputs until `keep` of `units` are left, and fit the layer to its target.

    `features` maps units to the positions of their features. `refit` is α: the layer is fitted to α times its target
    plus 1 − α times the output of its own weights on the current inputs.
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
    weight_OI[:, dead_I] = 0  # these inputs are always zero, so removing them costs nothing
    size = weight_OI.shape[1] // units
    kept = remove_groups(
        weight_OI,
        inverse_II,
        metric_OO,
        size=size,
        keep=keep,
        per_step=_INPUTS_PER_STEP if size == 1 else 1,
    )
    left_I = features(torch.tensor(kept)).to(weight_OI.device)
    left_OI = _fitted(weight_OI[:, left_I], target_OI[:, left_I], gram_II[left_I][:, left_I], parameters.ridge, note)
    left_OI = torch.where(dead_I[left_I], dense_OI[:, left_I], left_OI)
    fitted_OI = torch.zeros_like(dense_OI).index_copy_(1, left_I, left_OI)
    energy = None
    if metric_OO is not None:
        error_OI = best_OI - fitted_OI
        energy_OI = (metric_OO @ error_OI) * (error_OI @ gram_II)
        energy = float(energy_OI.sum(dtype=torch.float64))
    return InputRemoval(fitted_OI, kept, left_I, energy)


def with_inputs(
    dense_OI: Tensor,
    inputs: InputStatistic,
    left_I: Tensor,
    parameters: StructuredFrontierParameters,
    note: Callable[[str], None],
) -> Tensor:
    """Return the weights with zeros for all inputs but `left_I`, which are fitted as in `without_inputs`."""
    gram_IL = inputs.gram_II.index_select(1, left_I)
    wanted_OL = target_product(dense_OI, inputs).index_select(1, left_I)
    target_OL = torch.lerp(dense_OI @ gram_IL, wanted_OL, parameters.refit)
    left_OI = _fitted(dense_OI.index_select(1, left_I), target_OL, gram_IL[left_I], parameters.ridge, note)
    return torch.zeros_like(dense_OI).index_copy_(1, left_I, left_OI)


def _fitted(left_OL: Tensor, target_OL: Tensor, gram_LL: Tensor, ridge: float, note: Callable[[str], None]) -> Tensor:
    """Return V + (C − VG)(G + ρI)⁻¹ for the columns V that are left, with their own G and C."""
    (direction_OL,) = ridge_directions([target_OL - left_OL @ gram_LL], gram_LL, ridge, note)
    return left_OL + direction_OL


def remove_groups(
    weight_OI: Tensor,
    inverse_II: Tensor,
    metric_OO: Tensor | None,
    *,
    size: int,
    keep: int,
    per_step: int,
) -> list[int]:
    """Remove groups of `size` adjacent inputs until `keep` groups are left; return the kept groups, ascending.

    Removing the inputs S of a group costs tr(W_Sᵀ·M·W_S·([H⁻¹]_SS)⁻¹). H⁻¹ is the inverse of the damped Gram matrix of
    the remaining inputs. M is the metric of the outputs; None stands for the identity. A step removes the `per_step`
    groups of least cost together: W −= W_S·([H⁻¹]_SS)⁻¹·[H⁻¹]_S:, and the same for H⁻¹. `weight_OI` and `inverse_II`
    are changed in place.
    """
    groups = weight_OI.shape[1] // size
    metric_weight_OI = weight_OI if metric_OO is None else metric_OO @ weight_OI
    remaining_U = torch.ones(groups, dtype=torch.bool, device=weight_OI.device)
    offsets_S = torch.arange(size, device=weight_OI.device)
    left = groups
    while left > keep:
        cost_U = _group_costs(weight_OI, metric_weight_OI, inverse_II, size).masked_fill(~remaining_U, torch.inf)
        going = min(per_step, left - keep)
        removed_U = cost_U.argsort(stable=True)[:going]
        features = (removed_U[:, None] * size + offsets_S).flatten()
        spread_SI = torch.linalg.solve(inverse_II[features][:, features], inverse_II[features])
        if metric_weight_OI is not weight_OI:
            metric_weight_OI.addmm_(metric_weight_OI[:, features], spread_SI, alpha=-1)
            metric_weight_OI[:, features] = 0
        weight_OI.addmm_(weight_OI[:, features], spread_SI, alpha=-1)
        weight_OI[:, features] = 0
        inverse_II.addmm_(inverse_II[:, features], spread_SI, alpha=-1)
        inverse_II[features] = 0
        inverse_II[:, features] = 0
        inverse_II[features, features] = 1
        remaining_U[removed_U] = False
        left -= going
    return remaining_U.nonzero().flatten().tolist()


def _group_costs(weight_OI: Tensor, metric_weight_OI: Tensor, inverse_II: Tensor, size: int) -> Tensor:
    """Return tr(W_Sᵀ·M·W_S·([H⁻¹]_SS)⁻¹) for each group S alone: [groups]. `metric_weight_OI` is M·W."""
    if size == 1:
        tiny = torch.finfo(inverse_II.dtype).tiny
        return (weight_OI * metric_weight_OI).sum(dim=0) / inverse_II.diagonal().clamp(min=tiny)
    weight_UOS, metric_weight_UOS = (
        each.unflatten(1, (-1, size)).transpose(0, 1) for each in (weight_OI, metric_weight_OI)
    )
    energy_USS = weight_UOS.transpose(1, 2) @ metric_weight_UOS
    inverse_USS = torch.stack(
        [inverse_II[start : start + size, start : start + size] for start in range(0, len(inverse_II), size)]
    )
    spread_USS: Tensor = torch.linalg.solve(inverse_USS, energy_USS)
    return spread_USS.diagonal(dim1=1, dim2=2).sum(dim=1)
