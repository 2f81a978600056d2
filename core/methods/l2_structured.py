"""L2 structured pruning: removal of the heads and channels of smallest weight norm.

Table 1 of LLM-Pruner shows that models collapse under it (Ma 2023, arXiv:2305.11627).
"""

from collections.abc import Mapping

from torch import Tensor

from core.engine.architectures.units import KindName
from core.engine.options.axes import MethodParameters
from core.engine.pruning.units.method import UnitMethod, UnitSelectionContext
from core.engine.pruning.units.removal import UnitCounts
from core.engine.pruning.units.unit_slices import UnitSlice


class L2Structured(UnitMethod):
    """Score Σ w² over all weights that are removed with a group; it orders groups as their L2 norm does."""

    weight_reads = 1

    def __init__(self, parameters: MethodParameters) -> None:
        pass

    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        scores: list[Mapping[KindName, Tensor]] = []
        for layer, tensors in context.streamed.read_blocks(range(context.layers), "comparing the weights of blocks"):

            def squares(unit_slice: UnitSlice, tensors: Mapping[str, Tensor] = tensors) -> Tensor:
                return unit_slice.per_feature(tensors[unit_slice.name].float().square())

            scores.append({each.kind: each.sum(squares, tensors).cpu() for each in context.unit_sets(layer)})
        return context.plan_of(context.keep_highest(scores))
