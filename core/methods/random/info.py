"""Random: its description and parameters."""

from core.engine.options.allocation import AllocationOptions
from core.engine.options.compensation import CompensationOptions
from core.engine.options.propagation import PropagationOptions
from core.engine.removals.weights.options import LayerSelection
from core.methods.method_info import ZEROS_OR_N_M, MethodInfo
from secateur_wire.methods import Needs


class RandomParameters(LayerSelection, AllocationOptions, PropagationOptions, CompensationOptions):
    """Parameters of `random`."""


INFO = MethodInfo(
    id="random",
    rank=10,
    is_baseline=True,
    title="Random",
    summary="Removes weights at random. The baseline that every other method must beat.",
    description="Chooses the weights by chance, within each layer. It is here to compare with: a method that is not "
    "clearly better than this on your model is not worth its time. It needs no data, and takes only as long "
    "as reading the weights.",
    gains=ZEROS_OR_N_M,
    paper=None,
    task_families=("language-model", "image-classification"),
    patterns=("unstructured", "n:m"),
    needs=Needs(calibration=False, gradients=False, training=False),
    parameters=RandomParameters,
    removes="weights",
)
