"""Fits of what is left of a block: Optimal Brain Surgeon removes a layer's inputs, least squares fit its other weights.

The formulas are those of `StructuredFrontier`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.architectures.architecture import Experts
from core.engine.architectures.units import KindName
from core.engine.models.experts import out_in
from core.engine.models.tensors import to_out_in
from core.engine.options.axes import Refit
from core.engine.pruning.compensation.column_update import damped_cholesky
from core.engine.pruning.compensation.refit import refit, ridge_directions, target_product
from core.engine.pruning.input_statistics import InputStatistic
from core.engine.pruning.streams.propagation import InputGroup
from core.engine.pruning.units.method import BlockToPrune, PrunedBlock, PrunedTokens
from core.engine.pruning.units.removal import KeptLayerUnits, UnitSet, output_slices, remove_units, require_finite
from core.engine.pruning.units.unit_slices import SetSlice
from core.methods.descriptions.frontier import StructuredFrontierParameters

_MOST_NOTES = 3
"""Largest number of notes on a block's experts in the report."""
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


class BlockFit:
    """Fit of one block's layers; `units`, `changed`, `costs` and `notes` are the results so far.

    The units that go are chosen here, unless those that stay are given as `kept`.
    """

    def __init__(
        self,
        parameters: StructuredFrontierParameters,
        block: BlockToPrune,
        losing: dict[str, UnitSet],
        kept: KeptLayerUnits | None = None,
    ) -> None:
        self._parameters = parameters
        self._block = block
        self._losing = losing
        self._is_chosen = kept is not None
        self.units: KeptLayerUnits = kept or {}
        self.changed: dict[str, Tensor] = {}
        self.costs: dict[KindName, float] = {}
        self.notes: list[str] = []

    def __call__(self, group: InputGroup, inputs: InputStatistic) -> dict[str, Tensor]:
        dense = [self._dense(linear) for linear in group.linears]

        def note(what: str) -> None:
            self.notes.append(f"block {self._block.layer}, {', '.join(group.linears)}: {what}")

        losing = self._losing.get(group.first)
        if losing is None:
            compensation = Refit(refit=self._parameters.refit, ridge=self._parameters.ridge)
            fitted = [each.weight_OI for each in refit(dense, inputs, compensation, note)]
            features: Tensor | slice = slice(None)
        else:
            (dense_OI,) = dense
            fitted_OI, features = self._remove_inputs(losing, dense_OI, inputs, note)
            fitted = [fitted_OI]
        weights: dict[str, Tensor] = {}
        for linear, weight_OI in zip(group.linears, fitted, strict=True):
            name, family = f"{linear}.weight", self._block.family
            stored_OI = weight_OI.to(self._block.tensors[name].dtype)
            self.changed[name] = to_out_in(stored_OI[:, features], family).contiguous()
            weights[linear] = to_out_in(stored_OI, family).contiguous()
        return weights

    def _dense(self, linear: str) -> Tensor:
        return to_out_in(self._block.tensors[f"{linear}.weight"].float(), self._block.family)

    def changed_without_outputs(self) -> dict[str, Tensor]:
        """Return the changed weights without removed outputs; weights that lost inputs have already lost them here."""
        outputs = output_slices(self._block.family, self._block.unit_sets)
        return remove_units(self.changed, outputs, self.units)

    def _remove_inputs(
        self, unit_set: UnitSet, dense_OI: Tensor, inputs: InputStatistic, note: Callable[[str], None]
    ) -> tuple[Tensor, Tensor]:
        """Return the weights with columns of zeros for removed inputs, and the positions of the kept inputs."""
        if self._is_chosen:
            left_I = unit_set.reading_slice.features(torch.tensor(self.units[unit_set.kind])).to(dense_OI.device)
            return with_inputs(dense_OI, inputs, left_I, self._parameters, note), left_I
        removal = without_inputs(
            dense_OI,
            inputs,
            self._parameters,
            units=unit_set.units,
            keep=self._block.counts.units[unit_set.kind],
            features=unit_set.reading_slice.features,
            metric_OO=output_metric(self._parameters, self._block, unit_set.output, dense_OI),
            note=note,
            refit=self._parameters.refit,
        )
        self.units[unit_set.kind] = removal.kept
        if removal.energy is not None:
            self.costs[unit_set.kind] = removal.energy / (2 * inputs.tokens)
        return removal.weight_OI, removal.features


class ExpertsFit:
    """Fit of one block's experts, one after the other, and of the shared experts beside them.

    Each expert loses channels like a layer does, by the tokens that are routed to it.
    """

    def __init__(
        self, parameters: StructuredFrontierParameters, block: BlockToPrune, unit_set: UnitSet, experts: Experts
    ) -> None:
        self._parameters = parameters
        self._block = block
        self._unit_set = unit_set
        self._experts = experts
        self._keep = block.counts.units[unit_set.kind]
        self._width = unit_set.units // unit_set.sets
        self._kept: dict[int, list[int]] = {}
        self._fitted: list[Tensor] = []
        self._energy = 0.0
        self._tokens = 0
        self._notes: list[str] = []

    def choose_linear(self, pruned: PrunedTokens) -> dict[str, Tensor]:
        """Choose channels of the shared expert by ½E[z_j²]·w_jᵀMw_j; return the weight that reads them, with zeros."""
        name = self._unit_set.linear_output
        assert name is not None
        (unit_slice,) = (each for each in self._unit_set.slices if each.name == name)
        assert isinstance(unit_slice, SetSlice)
        moments = pruned.moments([unit_slice.linear])[unit_slice.linear]
        weight_OI = to_out_in(self._block.tensors[name].float(), self._block.family)
        metric_OO = output_metric(self._parameters, self._block, name, weight_OI)
        metric_weight_OI = weight_OI if metric_OO is None else metric_OO @ weight_OI
        costs_U = (weight_OI * metric_weight_OI).sum(dim=0).double().cpu() * moments.mean_square_I.cpu() / 2
        require_finite({self._block.layer: {self._unit_set.kind: costs_U}})
        first = unit_slice.first // self._width
        for number, of_set_I in enumerate(costs_U.split(self._width)):
            self._kept[first + number] = (
                of_set_I.argsort(stable=True)[self._width - self._keep :].sort().values.tolist()
            )
        kept = torch.tensor(
            [number * self._width + each for number in sorted(self._kept) for each in self._kept[number]]
        )
        zeroed_OI = torch.zeros_like(weight_OI)
        features = unit_slice.features(kept)
        zeroed_OI[:, features] = weight_OI[:, features]
        return {name: to_out_in(zeroed_OI, self._block.family)}

    def __call__(self, expert: int, weight_OI: Tensor, inputs: InputStatistic, is_reached: bool) -> Tensor:
        """Return an expert's last matrix without the removed inputs, as `FitExpert` says."""

        def note(what: str) -> None:
            self._notes.append(f"block {self._block.layer}, expert {expert}: {what}")

        inputs.fill_unseen_inputs()
        removal = without_inputs(
            weight_OI,
            inputs,
            self._parameters,
            units=self._width,
            keep=self._keep,
            features=lambda kept: kept,
            metric_OO=output_metric(self._parameters, self._block, self._unit_set.output, weight_OI),
            note=note,
        )
        self._kept[expert] = removal.kept
        if is_reached and removal.energy is not None:
            self._energy += removal.energy
            self._tokens += inputs.tokens
        stored = self._block.tensors[self._unit_set.output]
        rounded_OI = removal.weight_OI.to(stored.dtype)
        self._fitted.append(out_in(rounded_OI[:, removal.features], self._experts))
        return rounded_OI.float()

    def result(self) -> PrunedBlock:
        """Return the kept units of the block, with the fitted last matrices of its experts."""
        kept = [number * self._width + each for number in sorted(self._kept) for each in self._kept[number]]
        units = {self._unit_set.kind: kept} if len(kept) < self._unit_set.units else {}
        changed = {self._unit_set.output: torch.stack(self._fitted)}
        # A token counts once for every expert that it is routed to.
        costs = self._energy * self._experts.top_k / (2 * self._tokens) if self._tokens else None
        return PrunedBlock(
            units, changed, {} if costs is None else {self._unit_set.kind: costs}, self._notes[:_MOST_NOTES]
        )
