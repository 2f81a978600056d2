"""Removal of a layer's inputs by Optimal Brain Surgeon, and the fit of what is left of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.pruning.compensation.column_update import damped_cholesky
from core.engine.pruning.compensation.refit import ridge_directions, target_product
from core.engine.pruning.input_statistics import InputStatistic
from core.engine.pruning.units.block_tokens import BlockToPrune
from core.methods.frontier.group_surgeon import remove_groups
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
