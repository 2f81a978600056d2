"""Budget of units that are ranked over all layers at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_counts import unreachable
from core.engine.architectures.unit_kind import UnitKind


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


def global_unit_budget(
    structure: ModelStructure,
    *,
    parameters: int,
    ratio: float,
    kinds: Sequence[UnitKind],
    round_to: int,
    protected: frozenset[int],
    at_least: bool = False,
) -> GlobalUnitBudget:
    """Return the budget that removes `ratio` of the `parameters`; raises InvalidSparsity naming the most there is."""
    most = 0
    for layer, shape in enumerate(structure.layers):
        if layer not in protected:
            for kind in kinds:
                last = round_to if kind.is_fine else kind.parts(shape)
                most += max(kind.units(shape) - last, 0) * kind.parameters(structure, layer)
    if ratio * parameters > most:
        raise unreachable(ratio, most / parameters, round_to)
    return GlobalUnitBudget(ratio, ratio * parameters, protected, round_to, at_least)
