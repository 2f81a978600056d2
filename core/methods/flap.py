"""FLAP (An, Zhao, Yu, Tang, Wang 2023, arXiv:2312.11983): removal of the heads and channels that fluctuate least."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from core.engine.architectures.units import KindName
from core.engine.models.tensors import to_out_in
from core.engine.pruning.units.method import (
    BlockToPrune,
    Moments,
    PrunedBlock,
    PrunedTokens,
    TokensAtBlock,
    UnitMethod,
    UnitSelectionContext,
)
from core.engine.pruning.units.ranking import threshold_counts
from core.engine.pruning.units.removal import UnitCounts, kept_mask, require_finite
from core.engine.pruning.units.removal_config import output_biases
from core.engine.pruning.units.unit_slices import UnitSlice
from core.methods.descriptions.structured import FLAPParameters

_TINY = torch.finfo(torch.float64).tiny


class FLAP(UnitMethod):
    """FLAP; WIFV, the score of a feature x_j that an output projection W reads, is var(x_j)·‖W_j‖² in the dense model.

    A unit's score is the mean over its features. Before scores of different layers are compared, they are standardised
    within each layer's attention or FFN: their mean is subtracted, and they are divided by their standard deviation.
    For the removed features R the bias becomes b + W_R·mean(x_R).
    """

    weight_reads = 1
    reads = "dense"

    def __init__(self, parameters: FLAPParameters) -> None:
        self.metric = parameters.metric
        self.bias = parameters.leaves_biases

    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        width_reduction = context.width_reduction
        assert width_reduction is not None
        if self.bias:
            biases = output_biases(context.folder, [kind.name for kind in context.kinds])
            width_reduction = width_reduction.with_added_parameters(context.structure, biases.added)
        counts = width_reduction.counts
        if width_reduction.ranking is not None:
            scores = self._standardised_scores(context)
            counts = threshold_counts(context.structure, scores, context.kinds, width_reduction.ranking)
        assert counts is not None
        kept = UnitCounts(layers=dict(enumerate(counts)))
        return self._with_biases(kept, context) if self.bias else kept

    def prune_block(self, block: BlockToPrune, dense: TokensAtBlock | None, pruned: PrunedTokens | None) -> PrunedBlock:
        if not block.counts.removed:
            return PrunedBlock({})
        assert dense is not None
        moments = dense.moments_of_units(block.family.experts, block.unit_sets)
        units = block.keep_highest(
            {
                unit_set.kind: _summed(
                    _unit_averages(each, self._feature_scores(each, block.tensors, moments[each.name]))
                    for each in unit_set.reading_slices
                )
                for unit_set in block.unit_sets
            }
        )
        changed = {}
        for unit_set in block.unit_sets:
            for unit_slice in unit_set.reading_slices:
                name = f"{unit_slice.linear}.bias"
                if self.bias and unit_set.kind in units and name in block.tensors:
                    kept_U = kept_mask(units[unit_set.kind], unit_set.units).double()
                    weight_OI = to_out_in(block.tensors[unit_slice.name].float(), block.family)
                    removed_I = 1 - unit_slice.spread(kept_U, unowned=1.0).to(weight_OI.device)
                    mean_I = (moments[unit_slice.name].mean_I * removed_I).float()
                    before_O = block.tensors[name]
                    changed[name] = (before_O.float() + weight_OI @ mean_I).to(before_O.dtype)
        return PrunedBlock(units, changed)

    def _standardised_scores(self, context: UnitSelectionContext) -> list[dict[KindName, Tensor]]:
        scores: list[dict[KindName, Tensor]] = []
        for layer, tensors, tokens in context.dense_blocks():
            unit_sets = context.unit_sets(layer)
            moments = tokens.moments_of_units(context.folder.family.experts, unit_sets)
            scores.append({})
            for unit_set in unit_sets:
                slices = unit_set.reading_slices
                features = [self._feature_scores(each, tensors, moments[each.name]) for each in slices]
                of_all_F = torch.cat([each.flatten() for each in features])
                require_finite({layer: {unit_set.kind: of_all_F}})
                mean, deviation = of_all_F.mean(), of_all_F.std(correction=0).clamp(min=_TINY)
                scores[layer][unit_set.kind] = _summed(
                    _unit_averages(unit_slice, (each - mean) / deviation)
                    for unit_slice, each in zip(slices, features, strict=True)
                )
        return scores

    def _feature_scores(self, unit_slice: UnitSlice, tensors: Mapping[str, Tensor], moments: Moments) -> Tensor:
        """Return the metric of each feature that a weight reads, on the CPU."""
        weight = tensors[unit_slice.name].float()
        match self.metric:
            case "wifn":
                outputs = weight.numel() // moments.mean_square_I.numel()
                scores = unit_slice.per_feature(weight.abs()).double() / outputs * moments.mean_square_I.sqrt()
            case "ifv":
                scores = moments.variance_I
            case _:
                scores = moments.variance_I * unit_slice.per_feature(weight.square()).double()
        return scores.cpu()

    def _with_biases(self, kept: UnitCounts, context: UnitSelectionContext) -> UnitCounts:
        """Let the config give biases to the output projections that lose inputs; note those that cannot have one."""
        losing = kept.losing(context.structure, context.kinds)
        biases = output_biases(context.folder, losing)
        notes = [
            f"{each.output} has no bias in this architecture: what is removed of the {kind} leaves no mean behind."
            for kind in losing
            if kind not in biases.kinds and (each := context.folder.family.sublayer_of(kind)) is not None
        ]
        return kept.model_copy(update={"biases": biases.settings, "notes": notes})


def _unit_averages(unit_slice: UnitSlice, features_I: Tensor) -> Tensor:
    """Return the mean over the features of each unit [units]; 0 for a unit without features in this tensor."""
    return unit_slice.per_unit(features_I) / unit_slice.per_unit(torch.ones_like(features_I)).clamp(min=1)


def _summed(scores: Iterable[Tensor]) -> Tensor:
    """Return the scores of all units of a set; each unit's score is in one tensor and 0 in the others."""
    return torch.stack(list(scores)).sum(dim=0)
