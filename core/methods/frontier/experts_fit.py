"""Frontier for the channels of experts: of each one they go as of a layer, by the tokens that are routed to it."""

import torch
from torch import Tensor

from core.engine.architectures.experts import Experts
from core.engine.models.experts import out_in
from core.engine.models.tensors import to_out_in
from core.engine.pruning.input_statistics import InputStatistic
from core.engine.pruning.layerwise.expert_pruning import UNSEEN
from core.engine.pruning.units.block_tokens import BlockToPrune, PrunedBlock, PrunedTokens
from core.engine.pruning.units.removal import UnitSet, require_finite
from core.engine.pruning.units.unit_slices import SetSlice
from core.methods.frontier.input_removal import output_metric, without_inputs
from core.methods.frontier.structured_info import StructuredFrontierParameters

_MOST_NOTES = 3
"""Notes on a block's experts that the report has, at most."""


class ExpertsFit:
    """Fit of one block's experts, one after the other, and of what is as wide beside them."""

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
        """Choose by ½E[z_j²]·w_jᵀMw_j, and return the weight that reads the channels beside, zero where they go."""
        name = self._unit_set.linear_output
        assert name is not None
        (unit_slice,) = (each for each in self._unit_set.slices if each.name == name)
        assert isinstance(unit_slice, SetSlice)
        moments = pruned.moments([unit_slice.linear])[unit_slice.linear]
        weight_OI = to_out_in(self._block.tensors[name].float(), self._block.family)
        metric_OO = output_metric(self._parameters, self._block, name, weight_OI)
        imaged_OI = weight_OI if metric_OO is None else metric_OO @ weight_OI
        costs_U = (weight_OI * imaged_OI).sum(dim=0).double().cpu() * moments.mean_square_I.cpu() / 2
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
        """Return an expert's last matrix without what goes, as `FitExpert` says."""

        def note(what: str) -> None:
            self._notes.append(f"block {self._block.layer}, expert {expert}: {what}")

        inputs.give_unseen_inputs(UNSEEN)
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
        """Return what the block keeps, with the last matrices of its experts as they were fitted."""
        kept = [number * self._width + each for number in sorted(self._kept) for each in self._kept[number]]
        units = {self._unit_set.kind: kept} if len(kept) < self._unit_set.units else {}
        changed = {self._unit_set.output: torch.stack(self._fitted)}
        # Each token is counted once for every expert it goes to.
        costs = self._energy * self._experts.top_k / (2 * self._tokens) if self._tokens else None
        return PrunedBlock(
            units, changed, {} if costs is None else {self._unit_set.kind: costs}, self._notes[:_MOST_NOTES]
        )
