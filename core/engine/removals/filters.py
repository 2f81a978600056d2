"""Filters: image classifiers lose convolution filters, with every channel coupled to them."""

from collections.abc import Sequence

from core.engine.cuts import Cut, Removal, RemovalPlan
from core.engine.removals.weights import prunable_linears, selection_of

_MOST = 0.9
"""Largest share of a classifier's parameters in a planned request. Only the engine computes the number of filters."""


class FilterRemoval(Removal):
    """Removal of filters. The engine knows coupled filters and checks their number."""

    def check(self, cut: Cut) -> RemovalPlan:
        prunable_linears(cut.description, selection_of(cut.options))
        return RemovalPlan()

    def reachable(self, cut: Cut) -> Sequence[float]:
        return [0.0, _MOST]


FILTERS = FilterRemoval("filters", keeps_zeros=True, is_fine=True)
