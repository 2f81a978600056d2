"""Drop biases: its description and parameters."""

from core.engine.options.base import MethodParameters
from core.methods.method_info import SMALLER, MethodInfo
from secateur_wire.methods import Needs


class DropBiasesParameters(MethodParameters):
    """Parameters of `drop-biases`."""


INFO = MethodInfo(
    id="drop-biases",
    rank=131,
    title="Drop biases",
    summary="Removes the biases of linear layers.",
    description="Removes the biases of linear layers.",
    gains=SMALLER,
    paper=None,
    task_families=("language-model",),
    patterns=("structured",),
    needs=Needs(calibration=False, gradients=False, training=False),
    parameters=DropBiasesParameters,
    removes="biases",
)
