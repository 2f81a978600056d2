"""L2 structured pruning: heads and channels of smallest weight norm are removed.

LLM-Pruner's table 1 shows it to collapse (Ma 2023, arXiv:2305.11627).
"""

from collections.abc import Mapping

from torch import Tensor

from core.engine.architectures.unit_counts import Kind
from core.engine.options.base import MethodParameters
from core.engine.pruning.protocols.units import StructuredMethod
from core.engine.pruning.units.context import Scene
from core.engine.pruning.units.removal import Cut, Slot


class L2Structured(StructuredMethod):
    """Score Σ w² over all weights that are removed with the group, which has the order of the norm."""

    weight_reads = 1

    def __init__(self, parameters: MethodParameters) -> None:
        pass

    def choose(self, context: Scene) -> Cut:
        scores: list[Mapping[Kind, Tensor]] = []
        for layer in range(context.layers):
            tensors = context.skeleton.read_block(layer)

            def squares(slot: Slot, tensors: Mapping[str, Tensor] = tensors) -> Tensor:
                return slot.per_feature(tensors[slot.name].float().square())

            scores.append({groups.kind: groups.sum(squares, tensors) for groups in context.groups(layer)})
        return context.keep_highest(scores)
