"""Random, structured: its description and parameters."""

from core.engine.removals.widths.options import RankedWidthOptions
from core.methods.method_info import SMALLER, MethodInfo
from secateur_wire.methods import Needs


class RandomStructuredParameters(RankedWidthOptions):
    """Parameters of `random-structured`."""

    paper_protects = (4, 2)


INFO = MethodInfo(
    id="random-structured",
    rank=70,
    is_baseline=True,
    title="Random, structured",
    summary="Removes heads and channels at random. The baseline that every other structured method must beat.",
    description="Chooses heads and channels by chance. It is here to compare with: a structured method must beat it. "
    "It needs no data.",
    gains=SMALLER,
    paper=None,
    task_families=("language-model",),
    patterns=("structured",),
    needs=Needs(calibration=False, gradients=False, training=False),
    parameters=RandomStructuredParameters,
    removes="widths",
)
