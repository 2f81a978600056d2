"""Width reduction: how many units of each kind the layers of a model keep, or the ranking by which they are chosen."""

from dataclasses import dataclass, replace

from core.engine.architectures.global_budget import GlobalUnitBudget
from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_counts import LayerCounts, fine_kind
from core.engine.architectures.unit_kind import AttentionMode, UnitKind
from core.engine.architectures.unit_registry import removed_kinds


@dataclass(frozen=True)
class WidthReduction:
    """Width reduction of the layers: to given `counts`, or by a `ranking` of the units of all layers.

    `counts` has one entry per layer; where it is None, layers keep the units that the ranking leaves. `protected`
    layers are not changed. At least `limit` parameters have to go; 0: as many as are nearest to the ratio.

    `others` are reductions by as much that split it differently between attention and FFN, in place of any of which
    this one may be taken: it is where nothing can be measured.
    """

    attention: AttentionMode
    protected: frozenset[int]
    counts: tuple[LayerCounts, ...] | None
    ranking: GlobalUnitBudget | None
    round_to: int
    limit: float = 0.0
    others: tuple["WidthReduction", ...] = ()

    @property
    def kinds(self) -> tuple[UnitKind, ...]:
        """The kinds of units that are removed."""
        return removed_kinds(self.attention)

    def with_room_for(self, structure: ModelStructure, added: int) -> "WidthReduction":
        """Return the reduction with which the `limit` is held although a method adds parameters: so many more go."""
        if self.ranking is not None:
            more = added if self.ranking.at_least else 0
            return replace(self, ranking=replace(self.ranking, removed=self.ranking.removed + more))
        assert self.counts is not None
        counts = self.counts
        while self.limit and sum(each.removed for each in counts) < self.limit + added:
            narrower = tuple(
                each if layer in self.protected else self._narrower(each, structure, layer)
                for layer, each in enumerate(counts)
            )
            if narrower == counts:
                break
            counts = narrower
        return replace(self, counts=counts)

    def _narrower(self, counts: LayerCounts, structure: ModelStructure, layer: int) -> LayerCounts:
        """Return the counts of a layer with one aligned step of the finest units less, where it has more than one."""
        fine = fine_kind(self.kinds)
        before = counts.units[fine.name]
        after = max((before - 1) // self.round_to * self.round_to, min(self.round_to, before))
        removed = counts.removed + (before - after) * fine.parameters(structure, layer)
        return LayerCounts({**counts.units, fine.name: after}, removed)
