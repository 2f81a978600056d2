"""Registry of removals: the kinds, in the order of lists, without torch; `runs` has the table of their passes."""

from core.engine.removals.experts import EXPERTS
from core.engine.removals.filters import FILTERS
from core.engine.removals.layers import LAYERS
from core.engine.removals.vocabulary import VOCABULARY
from core.engine.removals.weights import WEIGHTS
from core.engine.removals.widths import WIDTHS

REMOVALS = {kind.id: kind for kind in (WEIGHTS, WIDTHS, LAYERS, EXPERTS, FILTERS, VOCABULARY)}
"""Kinds of removal by id."""
