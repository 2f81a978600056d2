"""Budget for units that are ranked over all layers at once."""

from dataclasses import dataclass

from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_counts import WidthRequest, unreachable


@dataclass(frozen=True)
class GlobalUnitBudget:
    """Global ranking of the units of all layers that are not `protected`.

    The least important units are removed until about `removed` parameters, the `ratio` of the model's, are gone. The
    finest units go in steps of `round_to`, and a layer keeps at least one unit of each kind. With `at_least` no fewer
    parameters go; without it the number is the nearest possible.
    """

    ratio: float
    removed: float
    protected: frozenset[int]
    round_to: int
    at_least: bool = False


def global_unit_budget(structure: ModelStructure, request: WidthRequest) -> GlobalUnitBudget:
    """Return the budget for the requested removal; raises InvalidSparsity naming the largest possible ratio."""
    most = 0
    for layer, shape in enumerate(structure.layers):
        if layer not in request.protected:
            for kind in request.kinds:
                last = request.round_to if kind.is_fine else kind.parts(shape)
                most += max(kind.units(shape) - last, 0) * kind.parameters(structure, layer)
    if request.wanted > most:
        raise unreachable(request.ratio, most / request.parameters, request.round_to)
    return GlobalUnitBudget(request.ratio, request.wanted, request.protected, request.round_to, request.at_least)
