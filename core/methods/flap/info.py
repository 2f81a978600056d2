"""FLAP: its description and parameters."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from core.engine.architectures.heterogeneous import Layout
from core.engine.options.compensation import CutRefit
from core.engine.removals.widths.options import WidthOptions
from core.measurements.sentences import measured_losses
from core.methods.method_info import SMALLER, MethodInfo
from core.methods.plan_offer import PlanOffer
from secateur_wire.methods import Needs, Paper

_STATE_BYTES = 4


class FLAPParameters(WidthOptions):
    """Parameters of `flap`."""

    cuts_experts: ClassVar[bool] = True

    scope: Literal["layer", "model"] | None = Field(
        None,
        description="layer: every layer that is not protected loses the same share (the paper's UL-UM). model: heads "
        "and channels of all layers are ranked together, by scores standardised within the attention or FFN of each "
        "layer (the paper's AL-AM); needs output.layout 'per_layer'. Unset: model if output.layout is 'per_layer', "
        "else layer.",
    )
    metric: Literal["wifv", "ifv", "wifn"] = Field(
        "wifv",
        description="Score of an input feature x of the output projection, where w is the column that reads it. wifv: "
        "var(x)·‖w‖². ifv: var(x). wifn: mean|w|·rms(x).",
    )
    bias: bool | None = Field(
        None,
        description="Keep the mean of what is removed, as a bias of the output projection, if the architecture has a "
        "place for one. Unset: only if no refit is made, as in the paper; a refit makes up for more.",
    )

    @property
    def leaves_biases(self) -> bool:
        return not (self.compensation and self.compensation.refits) if self.bias is None else self.bias

    @property
    def default_refit(self) -> CutRefit | None:
        return None if self.bias else super().default_refit

    def with_refit(self) -> Self:
        filled = super().with_refit()
        return filled.model_copy(update={"bias": filled.leaves_biases})

    def ranks_layers(self, layout: Layout) -> bool:
        return self.scope == "model" or (self.scope is None and layout == "per_layer")

    @model_validator(mode="after")
    def _compensates_once(self) -> Self:
        if self.bias and self.compensation is not None and self.compensation.refits:
            raise ValueError(
                "the bias and compensation.refit both make up for what is removed: use one of them, bias false or no "
                "compensation"
            )
        return self


INFO = MethodInfo(
    id="flap",
    rank=95,
    title="FLAP",
    summary="Removes the heads and channels whose outputs vary least, and keeps their mean as a bias.",
    description="Measures on calibration text how much the output of each head and channel varies around its mean, "
    "weighted by the weights that read it, and removes those that vary least. Their mean stays as a bias. It "
    "takes forward passes only, holds one block in memory at a time, and trains nothing. Layers may keep "
    f"different numbers of heads and channels. {measured_losses('flap', 'structured', 'structured')}",
    gains=SMALLER,
    paper=Paper(
        title="Fluctuation-based Adaptive Structured Pruning for Large Language Models",
        authors="An, Zhao, Yu, Tang, Wang",
        year=2023,
        url="https://arxiv.org/abs/2312.11983",
    ),
    task_families=("language-model",),
    patterns=("structured",),
    needs=Needs(calibration=True, gradients=False, training=False),
    parameters=FLAPParameters,
    removes="widths",
    offers=(
        PlanOffer(
            goals=("speed",),
            place=30,
            reason="it removes channels by forward passes alone, which takes less memory",
            pattern="structured",
            parameters={"attention": "none", "bias": False},
            sequences=128,
        ),
    ),
)
