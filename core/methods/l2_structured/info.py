"""L2 norm, structured: its description and parameters."""

from core.engine.removals.widths.options import RankedWidthOptions
from core.methods.method_info import SMALLER, MethodInfo
from secateur_wire.methods import Needs


class L2StructuredParameters(RankedWidthOptions):
    """Parameters of `l2-structured`."""

    paper_protects = (4, 2)


INFO = MethodInfo(
    id="l2-structured",
    rank=80,
    title="L2 norm, structured",
    summary="Removes the heads and channels whose weights have the smallest L2 norm. A baseline, not advice.",
    description="Removes the heads and channels with the smallest weights as a whole. It needs no data. It is often no "
    "better than chance and sometimes worse, because the size of a channel says little about what the model "
    "uses it for.",
    gains=SMALLER,
    paper=None,
    task_families=("language-model",),
    patterns=("structured",),
    needs=Needs(calibration=False, gradients=False, training=False),
    parameters=L2StructuredParameters,
    removes="widths",
)
