"""LLM-Pruner (Ma, Fang, Wang 2023, arXiv:2305.11627): importance by Taylor expansion of the loss."""

from collections.abc import Mapping

from torch import Tensor

from core.engine.architectures.units import KindName
from core.engine.pruning.streams.block_gradients import backward_blocks
from core.engine.pruning.units.method import UnitMethod, UnitSelectionContext
from core.engine.pruning.units.removal import UnitCounts, UnitSet
from core.engine.pruning.units.unit_slices import UnitSlice
from core.methods.descriptions.structured import LLMPrunerParameters


class LLMPruner(UnitMethod):
    """Importance of groups by Taylor expansion of the loss.

    The importance of a weight is |w·g| (eq. 5, first order) or |w·g − ½·F·w²| (mixed), where F is the mean of g² over
    sequences. A group's importance is the sum over its weights. With vector-wise aggregation, the weights of each row
    or column are summed before the absolute value is taken.
    """

    weight_reads = 2
    tries_models = True

    def __init__(self, parameters: LLMPrunerParameters) -> None:
        self.is_mixed = parameters.importance == "mixed"
        self.by_vector = parameters.aggregation == "vector_wise"

    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        assert context.calibration is not None
        unit_sets = [context.unit_sets(layer) for layer in range(context.layers)]
        scores: list[Mapping[KindName, Tensor]] = [{} for _ in unit_sets]

        def score(layer: int, weights: Mapping[str, Tensor], g: Mapping[str, Tensor], F: Mapping[str, Tensor]) -> None:
            scores[layer] = {each.kind: self._importance(each, weights, g, F).cpu() for each in unit_sets[layer]}

        with context.stream("gradients", context.calibration, micro_batch=1, keeps_all=True) as stream:
            loss = backward_blocks(
                stream,
                [[unit_slice.name for each in layer for unit_slice in each.slices] for layer in unit_sets],
                score,
                squares=self.is_mixed,
            )
        context.log(f"gradients of {len(context.calibration)} sequences, mean loss {loss:.4f}")
        return context.plan_of(context.keep_highest(scores))

    def _importance(
        self, unit_set: UnitSet, weights: Mapping[str, Tensor], g: Mapping[str, Tensor], F: Mapping[str, Tensor]
    ) -> Tensor:
        def taylor(unit_slice: UnitSlice) -> Tensor:
            weight = weights[unit_slice.name]
            change = weight * g[unit_slice.name]
            if self.is_mixed:
                change = change - 0.5 * F[unit_slice.name] * weight.square()
            return unit_slice.per_feature(change).abs() if self.by_vector else unit_slice.per_feature(change.abs())

        return unit_set.sum(taylor, weights)
