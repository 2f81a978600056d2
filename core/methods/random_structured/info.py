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
    summary="Heads and channels removed at random: the baseline every other structured method must beat.",
    description="Which heads and channels go is left to chance. Like Random it is here to compare with: a "
    "structured method has to beat it. It needs no data.",
    gains=SMALLER,
    paper=None,
    task_families=("language-model",),
    patterns=("structured",),
    needs=Needs(calibration=False, gradients=False, training=False),
    parameters=RandomStructuredParameters,
    removes="widths",
)
