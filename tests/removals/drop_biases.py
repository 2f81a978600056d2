"""A method that removes biases: there is nothing to choose."""

from core.engine.options.axes import MethodParameters
from core.engine.pruning.protocols.units import UnitMethod
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.removal import KeptUnits
from core.methods.method_info import MethodInfo

DROP_BIASES = MethodInfo(
    id="drop-biases",
    title="Drop biases",
    summary="Removes the biases of linear layers.",
    description="Removes the biases of linear layers.",
    patterns=("structured",),
    parameters=MethodParameters,
    removes="biases",
)


class DropBiases(UnitMethod):
    """Removal of biases alone, so that all layers stay."""

    weight_reads = 0

    def __init__(self, parameters: MethodParameters) -> None: ...

    def select(self, context: UnitSelectionContext) -> KeptUnits:
        return context.without_layers([])
