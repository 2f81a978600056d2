"""Limit of a cost that adds up over a model's parts, such as the milliseconds of a decode step."""

from collections.abc import Mapping

from pydantic import BaseModel

from core.engine.architectures.unit_kind import KindName


class CostLimit(BaseModel, frozen=True):
    """Costs of a model's parts, and the most that they may come to: `limit`; those of the dense model come to `dense`.

    `units` has the cost of a layer's units of each kind, by the number that stays: the numbers that may be chosen.
    `layer` is the cost of the rest of a layer, and `fixed` that of everything else. `target` is the kind of the job's
    target, a ratio to the dense model's cost if `is_ratio`, and `basis` says where the costs come from.
    """

    target: str
    is_ratio: bool
    basis: str
    limit: float
    dense: float
    fixed: float
    layer: float
    units: dict[KindName, dict[int, float]]

    def of_layer(self, units: Mapping[KindName, int]) -> float:
        """Return the cost of a layer that keeps these numbers of units."""
        return self.layer + sum(costs[units[kind]] for kind, costs in self.units.items())

    def figure(self, cost: float) -> str:
        """Return a cost as the target states it, for messages and the report."""
        return f"{cost / self.dense:.3f}" if self.is_ratio else f"{round(cost):,}"
