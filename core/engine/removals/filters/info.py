"""Filters: the reachable sparsities of a classifier."""

from collections.abc import Sequence

from core.engine.cuts.cut import Cut
from core.engine.cuts.plan import RemovalPlan
from core.engine.cuts.removal import Removal
from core.engine.removals.weights.options import prunable_linears, selection_of

_MOST = 0.9
"""Largest share of a classifier's parameters in a planned request. Only the engine computes the number of filters."""


class FilterRemoval(Removal):
    """Removal of filters. The engine knows coupled filters and checks their number."""

    def check(self, cut: Cut) -> RemovalPlan:
        prunable_linears(cut.description, selection_of(cut.options))
        return RemovalPlan()

    def reachable(self, cut: Cut) -> Sequence[float]:
        return [0.0, _MOST]

    def steps(self, cut: Cut) -> Sequence[float]:
        return ()

    def is_measurable_alone(self, *, trains: bool) -> bool:
        return True


INFO = FilterRemoval("filters", 50, keeps_zeros=True)
