"""Filters: which layers of a classifier lose them."""

from collections.abc import Sequence

from core.engine.cuts.cut import Cut
from core.engine.cuts.plan import RemovalPlan
from core.engine.cuts.removal import Removal
from core.engine.removals.weights.options import prunable_linears, selection_of

_MOST = 0.9
"""Share of a classifier's parameters up to which requests are planned. The engine alone knows how many filters go."""


class FilterRemoval(Removal):
    """Removal of filters; the engine, which knows coupled ones, checks their number."""

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
