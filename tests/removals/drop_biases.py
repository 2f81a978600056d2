"""A method that removes biases: there is nothing to choose."""

from core.engine.options.axes import MethodParameters
from core.engine.pruning.units.method import UnitMethod, UnitSelectionContext
from core.engine.pruning.units.removal import UnitCounts
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

    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        return context.plan_of(context.without_layers([]))
