"""Choice of a removal's split between attention and FFN, by the masked model's perplexity on calibration text."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from core.engine.architectures.unit_kind import KindName
from core.engine.architectures.unit_splits import LEAST_CHANNEL_SHARE, SPLIT_TOKENS
from core.engine.architectures.width_reduction import WidthReduction
from core.engine.cuts.plan import RemovalPlan
from core.engine.evaluation.perplexity import perplexity
from core.engine.models.streamed import call_block
from core.engine.pruning.streams.hidden_state_cache import HiddenStateCache
from core.engine.pruning.streams.stream import RecordedArguments
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.dense_blocks import dense_blocks
from core.engine.pruning.units.removal import KeptUnits
from core.engine.pruning.units.unit_masks import UnitMasks

WEIGHT_READS: Final = 2


@torch.inference_mode()
def choose_split(context: UnitSelectionContext) -> tuple[WidthReduction, list[str]]:
    """Return the reduction whose masked model predicts calibration text best, and the reasons.

    All reductions remove units in the same order: those whose outputs have the least energy, E[x²]·‖w‖² summed over a
    unit's features x, with w the column of the weights that reads the feature. Without calibration text the context's
    own reduction stays.
    """
    first = context.width_reduction
    assert first is not None
    if not first.others:
        return first, []
    reductions = [replace(first, others=()), *first.others]
    if context.calibration is None:
        return reductions[0], [
            "attention auto, without calibration: channels go before heads, while "
            f"{LEAST_CHANNEL_SHARE:.0%} of a layer's stay."
        ]
    sequences = max(1, SPLIT_TOKENS // context.calibration.shape[1])
    widest = max(reductions, key=lambda each: len(each.kinds))
    context = replace(context, removal=RemovalPlan(widest), calibration=context.calibration[:sequences])
    scores = _energies(context)
    kept = [replace(context, removal=RemovalPlan(each)).keep_highest(_of_kinds(scores, each)) for each in reductions]
    with context.hidden_state_cache() as cache:
        perplexities = _masked_perplexities(context, kept, cache)
    best = perplexities.index(min(perplexities))
    figures = "; ".join(
        f"{_described(context, each)}: {figure:.2f}" for each, figure in zip(kept, perplexities, strict=True)
    )
    assert context.calibration is not None
    return reductions[best], [
        f"attention auto: perplexity on {context.calibration.numel()} calibration tokens with what goes masked, by "
        f"what stays: {figures}. What stays is {_described(context, kept[best])}."
    ]


def _energies(context: UnitSelectionContext) -> list[dict[KindName, Tensor]]:
    """Return the mean energy of each unit's contribution to the output that reads it, in the dense model."""
    scores: list[dict[KindName, Tensor]] = []
    for layer, tensors, tokens in dense_blocks(context):
        unit_sets = context.unit_sets(layer)
        moments = tokens.moments_of_units(context.folder.family.experts, unit_sets)
        scores.append({})
        for unit_set in unit_sets:
            energies = []
            for each in unit_set.reading_slices:
                squares_I = each.per_feature(tensors[each.name].float().square()).double()
                energies.append(each.per_unit(moments[each.name].mean_square_I * squares_I))
            scores[layer][unit_set.kind] = torch.stack(energies).sum(0).cpu()
    return scores


def _of_kinds(
    scores: Sequence[Mapping[KindName, Tensor]], reduction: WidthReduction
) -> list[Mapping[KindName, Tensor]]:
    names = [kind.name for kind in reduction.kinds]
    return [{kind: score_U for kind, score_U in each.items() if kind in names} for each in scores]


def _masked_perplexities(
    context: UnitSelectionContext, kept: Sequence[KeptUnits], cache: HiddenStateCache
) -> list[float]:
    """Return the perplexity of the model with each of these choices, all computed together block by block."""
    assert context.calibration is not None
    streamed, dtype = context.streamed, context.forward_dtype
    batches = context.calibration.split(context.micro_batch)
    arguments = RecordedArguments(streamed, dtype)
    for batch, tokens in enumerate(batches):
        embedded = streamed.embed(tokens).to(dtype)
        for choice in range(len(kept)):
            cache.put(0, choice * len(batches) + batch, embedded)
    for index, block in streamed.filled_blocks(
        range(len(streamed)), "comparing what heads and channels cost, at blocks", dtype
    ):
        masks = UnitMasks([block], [context.unit_sets(index)])
        for choice, each in enumerate(kept):
            with masks.masked(masks.kept_by(KeptUnits(layers={0: each.layers[index]}))):
                for batch, tokens in enumerate(batches):
                    place = choice * len(batches) + batch
                    hidden = cache.take(index, place)
                    cache.put(index + 1, place, call_block(block, hidden, arguments.of(tokens)[index]))
    return [
        perplexity(
            streamed,
            (
                (tokens, cache.take(len(streamed), choice * len(batches) + batch))
                for batch, tokens in enumerate(batches)
            ),
        )
        for choice in range(len(kept))
    ]


def _described(context: UnitSelectionContext, kept: KeptUnits) -> str:
    """Return the number of kept units of each kind, over all layers."""
    kinds = context.kinds
    counts = kept.counts(context.structure, kinds).layers.values()
    return " and ".join(
        f"{sum(each.units[kind.name] for each in counts):,} of "
        f"{sum(kind.units(shape) for shape in context.structure.layers):,} {kind.name}"
        for kind in kinds
    )
