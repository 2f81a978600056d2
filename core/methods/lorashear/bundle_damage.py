"""Knowledge distribution of a model: the rise of the loss when one bundle of groups is left out.

LoRAShear (Chen 2023, arXiv:2310.18356, section 3.2). Damages are comparable over the entire model. Where all layers
must keep the same numbers of groups, no layer can be exempt as a whole: the most damaging bundles of each layer are
exempt. Where layers may differ, the most damaging bundles of the model are exempt.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.counting import counted
from core.engine.architectures.units import KindName
from core.engine.evaluation.perplexity import perplexity
from core.engine.models.streamed import call_block
from core.engine.pruning.streams.stream import RecordedArguments
from core.engine.pruning.units.adapter_model import AdapterModel, effective_weight
from core.engine.pruning.units.context import UnitSelectionContext


@dataclass(frozen=True)
class UnitBundle:
    """Groups of one kind in a layer, by index; `damage` is the rise of the loss without them, in nats per token."""

    layer: int
    kind: KindName
    units: tuple[int, ...]
    damage: float


def bundle_damage(
    context: UnitSelectionContext, adapter_model: AdapterModel, tokens_NT: Tensor, most: int
) -> list[UnitBundle]:
    """Measure the damage of every bundle on token ids [sequences, time].

    The groups of one kind in a layer are sorted by the L2 norm of their weights and divided into `most` bundles, or
    into as many bundles as there are groups. The hidden states before a layer are stored, so that only the masked layer
    and the layers after it run again.
    """
    streamed, dtype = context.streamed, adapter_model.dtype
    tokens = list(tokens_NT.split(context.micro_batch))
    arguments = RecordedArguments(streamed, dtype)
    norms = adapter_model.unit_sums(lambda linear: effective_weight(linear).square(), normalised=False)

    def loss(start: int, entering: Sequence[Tensor]) -> float:
        def end(tokens_BT: Tensor, hidden: Tensor) -> Tensor:
            for layer in range(start, context.layers):
                hidden = call_block(adapter_model.blocks[layer], hidden, arguments.of(tokens_BT)[layer])
            return hidden

        return math.log(perplexity(streamed, zip(tokens, map(end, tokens, entering), strict=True)))

    bundles = []
    with torch.inference_mode():
        hidden = [streamed.embed(each).to(dtype) for each in tokens]
        dense_loss = loss(0, hidden)
        for layer, unit_sets in enumerate(counted(adapter_model.unit_sets, "measuring what layers know")):
            for each in unit_sets:
                order = norms[layer][each.kind].argsort()
                for part in order.tensor_split(min(most, each.units)):
                    kept_U = torch.ones(each.units, dtype=torch.bool)
                    kept_U[part] = False
                    adapter_model.keep(layer, each.kind, kept_U)
                    damage = loss(layer, hidden) - dense_loss
                    bundles.append(UnitBundle(layer, each.kind, tuple(sorted(part.tolist())), damage))
                adapter_model.keep(layer, each.kind, torch.ones(each.units, dtype=torch.bool))
            hidden = [
                call_block(adapter_model.blocks[layer], each, arguments.of(tokens_BT)[layer])
                for tokens_BT, each in zip(tokens, hidden, strict=True)
            ]
    return bundles


def within_layer(bundle: UnitBundle) -> Hashable:
    """Return a bundle's layer and kind, within which bundles compete."""
    return bundle.layer, bundle.kind


def most_damaging(
    bundles: Sequence[UnitBundle], share: float, among: Callable[[UnitBundle], Hashable] = within_layer
) -> list[UnitBundle]:
    """Return the given share, rounded up, of the most damaging bundles among those with the same key `among`."""
    rivals: dict[Hashable, list[UnitBundle]] = {}
    for each in bundles:
        rivals.setdefault(among(each), []).append(each)
    return [
        each
        for those in rivals.values()
        for each in sorted(those, key=lambda one: -one.damage)[: math.ceil(share * len(those))]
    ]
