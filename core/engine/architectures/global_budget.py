"""Budget of units that are ranked over all layers at once."""

from dataclasses import dataclass

from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_counts import WidthRequest, unreachable


@dataclass(frozen=True)
class GlobalUnitBudget:
    """Global ranking of the units of all layers that are not `protected`.

    The least important ones are removed until about `removed` parameters, `ratio` of the model's, are gone; the finest
    in steps of `round_to`, and of no kind a layer's last. `at_least`: no fewer, else as near as possible.
    """

    ratio: float
    removed: float
    protected: frozenset[int]
    round_to: int
    at_least: bool = False


def global_unit_budget(structure: ModelStructure, request: WidthRequest) -> GlobalUnitBudget:
    """Return the budget that removes what is requested; raises InvalidSparsity naming the most there is."""
    most = 0
    for layer, shape in enumerate(structure.layers):
        if layer not in request.protected:
            for kind in request.kinds:
                last = request.round_to if kind.is_fine else kind.parts(shape)
                most += max(kind.units(shape) - last, 0) * kind.parameters(structure, layer)
    if request.wanted > most:
        raise unreachable(request.ratio, most / request.parameters, request.round_to)
    return GlobalUnitBudget(request.ratio, request.wanted, request.protected, request.round_to, request.at_least)
