"""LLM-Pruner (Ma, Fang, Wang 2023, arXiv:2305.11627): by Taylor expansion of the loss."""

from collections.abc import Mapping

from torch import Tensor

from core.engine.architectures.unit_counts import Kind
from core.engine.pruning.layerwise.block_gradients import backward_blocks
from core.engine.pruning.protocols.units import StructuredMethod
from core.engine.pruning.units.context import Scene
from core.engine.pruning.units.removal import Cut, Groups, Slot
from core.methods.llm_pruner.info import LLMPrunerParameters


class LLMPruner(StructuredMethod):
    """Importance of groups by Taylor expansion of the loss.

    A weight's is |w·g| (eq. 5, first order) or |w·g − ½·F·w²| (mixed), F the mean of per-sequence g², summed over the
    group; vector-wise, the absolute value is that of each row's or column's sum.
    """

    weight_reads = 2

    def __init__(self, parameters: LLMPrunerParameters) -> None:
        self.is_mixed = parameters.importance == "mixed"
        self.by_vector = parameters.aggregation == "vector_wise"

    def choose(self, context: Scene) -> Cut:
        assert context.calibration is not None
        groups = [context.groups(layer) for layer in range(context.layers)]
        scores: list[Mapping[Kind, Tensor]] = [{} for _ in groups]

        def score(layer: int, weights: Mapping[str, Tensor], g: Mapping[str, Tensor], F: Mapping[str, Tensor]) -> None:
            scores[layer] = {each.kind: self._importance(each, weights, g, F).cpu() for each in groups[layer]}

        loss = backward_blocks(
            context.skeleton,
            context.calibration,
            context.forward_dtype,
            [[slot.name for each in layer for slot in each.slots] for layer in groups],
            score,
            squares=self.is_mixed,
            cache=context.shelf(),
        )
        context.say(f"gradients of {len(context.calibration)} sequences, mean loss {loss:.4f}")
        return context.keep_highest(scores)

    def _importance(
        self, groups: Groups, weights: Mapping[str, Tensor], g: Mapping[str, Tensor], F: Mapping[str, Tensor]
    ) -> Tensor:
        def taylor(slot: Slot) -> Tensor:
            weight = weights[slot.name]
            change = weight * g[slot.name]
            if self.is_mixed:
                change = change - 0.5 * F[slot.name] * weight.square()
            return slot.per_feature(change).abs() if self.by_vector else slot.per_feature(change.abs())

        return groups.sum(taylor, weights)
