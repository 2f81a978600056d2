"""FLAP (An, Zhao, Yu, Tang, Wang 2023, arXiv:2312.11983): heads and channels that fluctuate least go."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from core.engine.architectures.unit_counts import Kind
from core.engine.models.tensors import to_out_in
from core.engine.pruning.input_moments import InputMoments
from core.engine.pruning.protocols.units import BlockUnitMethod
from core.engine.pruning.units.block_tokens import BlockToPrune, PrunedBlock, TokensAtBlock
from core.engine.pruning.units.context import Scene
from core.engine.pruning.units.dense_blocks import dense_blocks
from core.engine.pruning.units.output_biases import output_biases
from core.engine.pruning.units.ranking import threshold_counts
from core.engine.pruning.units.removal import LayerCut, Slot, UnitCounts, reading_slot, require_finite
from core.methods.flap.info import FLAPParameters

_TINY = torch.finfo(torch.float64).tiny


class FLAP(BlockUnitMethod):
    """Score var(x_j)·‖W_j‖² of each feature x_j that an output projection W reads in the dense model (WIFV).

    A unit's score is the mean over its features. Across layers scores are compared standardised: less their mean over a
    layer's attention or FFN, divided by their standard deviation. What is removed, R, leaves b += W_R·mean(x_R).
    """

    weight_reads = 1

    def __init__(self, parameters: FLAPParameters) -> None:
        self.metric = parameters.metric
        self.bias = parameters.bias

    def plan(self, context: Scene) -> UnitCounts:
        narrowing = context.narrowing
        assert narrowing is not None
        if self.bias:
            biases = output_biases(context.folder, [groups.kind for groups in context.groups(0)])
            narrowing = narrowing.making_room(context.structure, biases.added)
        counts = narrowing.counts
        if narrowing.ranking is not None:
            scores = self._standardised_scores(context)
            counts = threshold_counts(context.structure, scores, context.attention, narrowing.ranking)
        assert counts is not None
        kept = UnitCounts(attention=context.attention, layers=dict(enumerate(counts)))
        return self._with_biases(kept, context) if self.bias else kept

    def prune_block(
        self, block: BlockToPrune, dense: TokensAtBlock, pruned: TokensAtBlock | None, log: Callable[[str], None]
    ) -> PrunedBlock:
        if not block.counts.removed:
            return PrunedBlock(LayerCut())
        slots = {groups.kind: reading_slot(block.family, groups) for groups in block.groups}
        moments = dense.moments(map(_linear, slots.values()))
        scores: dict[Kind, Tensor] = {}
        for kind, slot in slots.items():
            features_I = self._feature_scores(slot, block.tensors, moments[_linear(slot)])
            scores[kind] = _unit_averages(slot, features_I)
        units = block.keep_highest(scores)
        changed = {}
        for groups in block.groups:
            slot = slots[groups.kind]
            name = f"{_linear(slot)}.bias"
            if self.bias and units.of(groups.kind) is not None and name in block.tensors:
                kept_U = units.mask(groups.kind, groups.units).double()
                removed_I = 1 - slot.spread(kept_U, unowned=1.0)
                mean_I = (moments[_linear(slot)].mean_I.cpu() * removed_I).float()
                weight_OI = to_out_in(block.tensors[slot.name].float(), block.family)
                before_O = block.tensors[name]
                changed[name] = (before_O.float() + weight_OI @ mean_I).to(before_O.dtype)
        return PrunedBlock(units, changed)

    def _standardised_scores(self, context: Scene) -> list[dict[Kind, Tensor]]:
        scores: list[dict[Kind, Tensor]] = []
        for layer, tensors, tokens in dense_blocks(context):
            slots = {groups.kind: reading_slot(context.folder.family, groups) for groups in context.groups(layer)}
            moments = tokens.moments(map(_linear, slots.values()))
            scores.append({})
            for kind, slot in slots.items():
                features_I = self._feature_scores(slot, tensors, moments[_linear(slot)])
                require_finite({layer: {kind: features_I}})
                features_I = (features_I - features_I.mean()) / features_I.std(correction=0).clamp(min=_TINY)
                scores[layer][kind] = _unit_averages(slot, features_I)
        return scores

    def _feature_scores(self, slot: Slot, tensors: Mapping[str, Tensor], moments: InputMoments) -> Tensor:
        weight = tensors[slot.name].float()
        if self.metric == "wifn":
            mean_square_I = moments.mean_square_I.cpu()
            outputs = weight.numel() // len(mean_square_I)
            return slot.per_feature(weight.abs()).double() / outputs * mean_square_I.sqrt()
        variance_I = moments.variance_I.cpu()
        return variance_I if self.metric == "ifv" else variance_I * slot.per_feature(weight.square()).double()

    def _with_biases(self, kept: UnitCounts, context: Scene) -> UnitCounts:
        """Let the config give biases to the layers that lose what they read, and say which ones it cannot."""
        losing = kept.losing(context.structure)
        biases = output_biases(context.folder, losing)
        notes = [
            f"{_linear(reading_slot(context.folder.family, groups))} has no bias in this architecture: what is removed "
            f"of the {groups.kind} leaves no mean behind."
            for groups in context.groups(0)
            if groups.kind in losing and groups.kind not in biases.kinds
        ]
        return kept.model_copy(update={"biases": biases.settings, "notes": notes})


def _linear(slot: Slot) -> str:
    return slot.name.removesuffix(".weight")


def _unit_averages(slot: Slot, features_I: Tensor) -> Tensor:
    return slot.per_unit(features_I) / slot.per_unit(torch.ones_like(features_I))
