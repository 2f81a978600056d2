"""LoRAPrune: its description and parameters."""

from pydantic import Field

from core.engine.removals.widths.adapter_options import AdapterOptions
from core.methods.method_info import SMALLER, MethodInfo
from secateur_wire.methods import Needs, Paper


class LoRAPruneParameters(AdapterOptions):
    """Parameters of `loraprune`."""

    momentum: float = Field(
        0.9, ge=0, lt=1, description="Weight of the earlier value in the moving average of the importance."
    )


INFO = MethodInfo(
    id="loraprune",
    rank=110,
    title="LoRAPrune",
    summary="Removes heads and channels a few at a time while low-rank adapters are trained, scored by the adapters' "
    "gradients alone.",
    description="Trains small adapters while it removes heads and channels a few at a time, and estimates their "
    "importance from the adapters' gradients, which take little memory. It recovers quality as it prunes. It "
    "takes as long as a fine-tuning run.",
    gains=SMALLER,
    paper=Paper(
        title="LoRAPrune: Structured Pruning Meets Low-Rank Parameter-Efficient Fine-Tuning",
        authors="Zhang, Chen, Shen, Yang, Ou, Yu, Zhuang",
        year=2023,
        url="https://arxiv.org/abs/2305.18403",
    ),
    task_families=("language-model",),
    patterns=("structured",),
    needs=Needs(calibration=True, gradients=True, training=True),
    parameters=LoRAPruneParameters,
    removes="widths",
    holds="model",
)
