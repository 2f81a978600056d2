"""Width reduction: the units of each kind that a model's layers keep, or what decides how many they are."""

from dataclasses import dataclass, replace

from core.engine.architectures.cost_limit import CostLimit
from core.engine.architectures.global_budget import GlobalUnitBudget
from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_counts import LayerCounts, fine_kind
from core.engine.architectures.unit_kind import AttentionMode, UnitKind
from core.engine.architectures.unit_registry import removed_kinds


@dataclass(frozen=True)
class WidthReduction:
    """Width reduction of the layers: to given `counts`, by a `ranking` of the units of all layers, or to `costs`.

    `counts` has one entry per layer; where it is None, layers keep the units that the ranking leaves, or lose least
    within the limit of `costs`. `protected` layers are not changed. At least `limit` parameters go; with 0, the number
    nearest to the ratio.
    """

    attention: AttentionMode
    protected: frozenset[int]
    counts: tuple[LayerCounts, ...] | None
    ranking: GlobalUnitBudget | None
    round_to: int
    limit: float = 0.0
    costs: CostLimit | None = None

    @property
    def kinds(self) -> tuple[UnitKind, ...]:
        return removed_kinds(self.attention)

    def with_added_parameters(self, structure: ModelStructure, added: int) -> "WidthReduction":
        """Return a reduction that removes `added` more parameters, so that `limit` holds for methods that add some."""
        if self.ranking is not None:
            more = added if self.ranking.at_least else 0
            return replace(self, ranking=replace(self.ranking, removed=self.ranking.removed + more))
        assert self.counts is not None
        counts = self.counts
        while self.limit and sum(each.removed for each in counts) < self.limit + added:
            narrower = tuple(
                each if layer in self.protected else self._with_one_step_less(each, structure, layer)
                for layer, each in enumerate(counts)
            )
            if narrower == counts:
                break
            counts = narrower
        return replace(self, counts=counts)

    def _with_one_step_less(self, counts: LayerCounts, structure: ModelStructure, layer: int) -> LayerCounts:
        """Return the counts of a layer with one aligned step of the finest units less, where it has more than one."""
        fine = fine_kind(self.kinds)
        before = counts.units[fine.name]
        after = max((before - 1) // self.round_to * self.round_to, min(self.round_to, before))
        removed = counts.removed + (before - after) * fine.parameters(structure, layer)
        return LayerCounts({**counts.units, fine.name: after}, removed)
