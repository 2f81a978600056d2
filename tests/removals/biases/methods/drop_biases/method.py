"""Drop biases: there is nothing to choose."""

from core.engine.options.base import MethodParameters
from core.engine.pruning.protocols.units import UnitMethod
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.removal import KeptUnits


class DropBiases(UnitMethod):
    """Removal of biases alone, so that all layers stay."""

    weight_reads = 0

    def __init__(self, parameters: MethodParameters) -> None: ...

    def select(self, context: UnitSelectionContext) -> KeptUnits:
        return context.without_layers([])
