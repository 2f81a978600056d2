"""Least-squares fit of a linear layer to the dense model's outputs, before pruning and for the remaining weights.

In a model that is pruned block by block, a layer no longer sees the inputs X [tokens, in_features] of the dense model
but X̂, the outputs of the pruned layers before it. A solver that preserves WX̂ keeps that drift. Here the target is the
dense output Y = WX. Where the output is added to the residual stream, Y also includes the difference between the dense
model's stream and this one's. In a layer that lost inputs, X̂ has fewer features.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.engine.options.axes import Compensation, Refit
from core.engine.pruning.compensation.column_update import damped_cholesky
from core.engine.pruning.grid import QuantisedWeight
from core.engine.pruning.input_statistics import InputStatistic
from core.engine.pruning.solver import PrunableLinear, Quantiser, Solver
from core.engine.pruning.streams.stream import Stream


@dataclass(frozen=True)
class Fitted:
    """Pruned weights of a linear layer, [out_features, in_features], and the parameters of their fit.

    `refit` and `ridge` are α and λ, `steps` the number of conjugate-gradient steps; None where there was no such fit.
    Where the model is quantised, `rounded` are the weights with their codes.
    """

    weight_OI: Tensor
    refit: float | None = None
    ridge: float | None = None
    steps: int | None = None
    rounded: QuantisedWeight | None = None


def prune_and_fit(
    method: Solver,
    linears: Sequence[PrunableLinear],
    inputs: InputStatistic,
    compensation: Compensation | None,
    note: Callable[[str], None],
    rounding: Quantiser | None = None,
) -> list[Fitted]:
    """Refit linear layers that share their inputs, prune them with the method, and fit the remaining weights again.

    With a `rounding` the result is rounded, by the method itself where nothing is fitted after it.
    """
    targets = [Fitted(linear.weight_OI) for linear in linears]
    if compensation is not None and compensation.refits:
        targets = refit([linear.weight_OI for linear in linears], inputs, compensation, note)
    target_linears = [
        replace(linear, weight_OI=target.weight_OI) for linear, target in zip(linears, targets, strict=True)
    ]
    steps = 0 if compensation is None else compensation.conjugate_gradient
    if rounding is not None and not steps:
        return _with_codes(targets, method.prune_and_round(target_linears, inputs, rounding, note))
    fitted = []
    for target, weight_OI in zip(targets, method.prune(target_linears, inputs, note), strict=True):
        if steps:
            weight_OI = conjugate_gradient(target.weight_OI, weight_OI, inputs.gram_II, steps)
        fitted.append(replace(target, weight_OI=weight_OI, steps=steps or None))
    if rounding is None:
        return fitted
    return _with_codes(fitted, rounding.round([each.weight_OI for each in fitted], inputs, note))


def _with_codes(fitted: Iterable[Fitted], rounded: Iterable[QuantisedWeight]) -> list[Fitted]:
    pairs = zip(fitted, rounded, strict=True)
    return [replace(each, weight_OI=quantised.weight_OI, rounded=quantised) for each, quantised in pairs]


def fitted_tokens(compensation: Refit, stream: Stream) -> int | None:
    """Return the number of a stream's tokens to fit, of those that count; the rest are hold-out tokens. None: all."""
    if not compensation.chooses:
        return None
    sequences = stream.token_count // stream.length
    return stream.counted_in(sequences - max(1, round(sequences * compensation.held_aside)))


def refit(
    weights: Sequence[Tensor],
    inputs: InputStatistic,
    compensation: Refit,
    note: Callable[[str], None],
    dense: Sequence[Tensor] | None = None,
) -> list[Fitted]:
    """Move the weights of layers that share their inputs α of the way towards the dense model's outputs.

    `dense` are the dense model's weights of the same outputs, where they differ.
    """
    dense = weights if dense is None else dense
    ridge, moved = compensation.ridge, []
    directions = refit_directions(weights, inputs, ridge, note, dense)
    for weight_OI, direction_OI, dense_OI in zip(weights, directions, dense, strict=True):
        share = compensation.refit
        if share == "auto":
            assert inputs.holdout is not None
            share = best_refit(weight_OI, direction_OI, inputs.holdout, dense_OI)
        moved.append(Fitted(weight_OI + share * direction_OI, share, ridge))
    return moved


def refit_directions(
    weights: Sequence[Tensor],
    inputs: InputStatistic,
    ridge: float,
    note: Callable[[str], None],
    dense: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Return the direction D = (YᵀX̂ − VX̂ᵀX̂)(X̂ᵀX̂ + λI)⁻¹ for each of the layers that share their inputs.

    V + D is the ridge solution of min ‖Y − X̂Uᵀ‖² + λ‖U − V‖² in U, with λ = ridge·mean(diag X̂ᵀX̂). The weights V are
    [out_features, in_features]. Y is the statistic's target if it has one, else XWᵀ of the `dense` weights W with the
    same number of outputs (None: V).

    D is zero, up to rounding, where X̂Vᵀ equals Y; it is exactly zero where X̂ is X and V is W. It is also zero for
    weights of inputs that are always zero.
    """
    pairs = zip(weights, dense or weights, strict=True)
    residual_products = (_residual_product(weight_OI, inputs, dense_OI) for weight_OI, dense_OI in pairs)
    return ridge_directions(residual_products, inputs.gram_II, ridge, note)


def ridge_directions(
    residual_products: Iterable[Tensor], gram_II: Tensor, ridge: float, note: Callable[[str], None]
) -> list[Tensor]:
    """Return S(G + λI)⁻¹ for each S, the residual of some outputs times their inputs, with G = XᵀX.

    λ is `ridge`·mean(diag G). Zero for inputs that are always zero.
    """
    lower_II, dead_I = damped_cholesky(gram_II, ridge, note)
    directions = []
    for residual_product_OI in residual_products:
        direction_OI = torch.cholesky_solve(residual_product_OI.T, lower_II).T
        direction_OI.masked_fill_(dead_I, 0)
        directions.append(direction_OI)
    return directions


def best_refit(
    weight_OI: Tensor, direction_OI: Tensor, holdout: InputStatistic, dense_OI: Tensor | None = None
) -> float:
    """Return the α in 0…1 that minimises ‖Y − X̂(V + αD)ᵀ‖² on hold-out tokens: the vertex of a parabola.

    Y is that of `refit_directions`.
    """
    curvature = _inner(direction_OI @ holdout.gram_II, direction_OI)
    if curvature <= 0:
        return 0.0
    shortfall_OI = _residual_product(weight_OI, holdout, weight_OI if dense_OI is None else dense_OI)
    return min(max(_inner(shortfall_OI, direction_OI) / curvature, 0.0), 1.0)


def target_product(dense_OI: Tensor, inputs: InputStatistic) -> Tensor:
    """Return YᵀX̂, Y the statistic's target if it has one, else XWᵀ of dense weights: [out_features, in_features]."""
    return dense_OI @ inputs.cross_II if inputs.target_OI is None else inputs.target_OI


def _residual_product(weight_OI: Tensor, inputs: InputStatistic, dense_OI: Tensor) -> Tensor:
    """Return (Y − X̂Vᵀ)ᵀX̂ for weights V, from the residual of the outputs: [out_features, in_features]."""
    if inputs.target_OI is None and (weight_OI is dense_OI or torch.equal(weight_OI, dense_OI)):
        # the two matrices are similar: their difference is exact enough only before the product
        return weight_OI @ (inputs.cross_II - inputs.gram_II)
    return target_product(dense_OI, inputs) - weight_OI @ inputs.gram_II


def conjugate_gradient(target_OI: Tensor, pruned_OI: Tensor, gram_II: Tensor, steps: int) -> Tensor:
    """Return the remaining weights, fitted: ‖X̂(T − V)ᵀ‖² is minimised over V that are zero where `pruned_OI` is.

    Conjugate gradients, Jacobi-preconditioned, all rows at once, start at `pruned_OI`; in exact arithmetic no step
    raises the objective.
    """
    kept_OI = pruned_OI != 0
    diagonal_I = gram_II.diagonal().clamp(min=torch.finfo(gram_II.dtype).tiny)
    fitted_OI = pruned_OI.clone()
    residual_OI = ((target_OI - fitted_OI) @ gram_II).mul_(kept_OI)
    scaled_OI = residual_OI / diagonal_I
    search_OI = scaled_OI.clone()
    energy_O = (residual_OI * scaled_OI).sum(dim=1)
    for _ in range(steps):
        image_OI = (search_OI @ gram_II).mul_(kept_OI)
        length_O = _quotient(energy_O, (search_OI * image_OI).sum(dim=1))
        fitted_OI = torch.addcmul(fitted_OI, length_O.unsqueeze(1), search_OI)
        residual_OI.addcmul_(length_O.unsqueeze(1), image_OI, value=-1)
        scaled_OI = residual_OI / diagonal_I
        grown_O = (residual_OI * scaled_OI).sum(dim=1)
        search_OI = torch.addcmul(scaled_OI, _quotient(grown_O, energy_O).unsqueeze(1), search_OI)
        energy_O = grown_O
    return fitted_OI


def _inner(first: Tensor, second: Tensor) -> float:
    return float((first * second).sum(dtype=torch.float64))


def _quotient(numerator_O: Tensor, denominator_O: Tensor) -> Tensor:
    """Return the quotient, with 0 where the denominator is 0: that row is solved."""
    return torch.where(denominator_O > 0, numerator_O / denominator_O.clamp(min=torch.finfo(numerator_O.dtype).tiny), 0)
