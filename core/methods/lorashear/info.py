"""LoRAShear: its description and parameters."""

from typing import Self

from pydantic import Field, model_validator

from core.engine.architectures.description import ModelDescription
from core.engine.removals.widths.adapter_options import AdapterOptions
from core.methods.method_info import SMALLER, MethodInfo
from secateur_wire.methods import Needs, Paper


class LoRAShearParameters(AdapterOptions):
    """Parameters of `lorashear`."""

    periods: int = Field(
        4, ge=1, le=1000, description="Number of periods. Each removes an equal part of the groups that can go."
    )
    epsilon: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="A group x that can go becomes zero when its step to x̂ has ⟨x̂, x⟩ < ε·‖x‖². A larger ε makes "
        "that happen sooner.",
    )
    exempt: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of each layer's bundles of heads, and of channels, that is spared: those whose absence "
        "costs most. A bundle is a part of the layer's heads or channels that is tried at once.",
    )
    bundles: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Largest number of bundles into which the heads, and the channels, of a layer are divided, to see "
        "what the absence of each costs. Unset: 8; with quick, 4.",
    )

    @property
    def most_bundles(self) -> int:
        return self.bundles or (4 if self.budget == "quick" else 8)

    @property
    def probed_tokens(self) -> int:
        """Return the number of calibration tokens on which each bundle is left out, unless one sequence is longer."""
        return 256 if self.budget == "quick" else 8192

    def forwards(self, description: ModelDescription, share: float, calibration: int, window: int) -> int:
        """Return the tokens for leaving out each bundle once, which runs half of the layers again on average."""
        return description.layers * self.most_bundles * self.probed_tokens if self.exempt else 0

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        steps = self.training(2).steps
        if steps < 10 * self.periods:
            raise ValueError(f"periods: {self.periods} need at least {10 * self.periods} steps, but there are {steps}")
        return self


INFO = MethodInfo(
    id="lorashear",
    rank=120,
    title="LoRAShear",
    summary="Shrinks heads and channels to zero while low-rank adapters move what they know into the rest. Spares "
    "those whose absence costs most.",
    description="Finds the heads and channels that the model needs most and spares them. Then it shrinks the others "
    "towards zero while adapters learn what those knew. It takes as long as a fine-tuning run, and the paper "
    "recovers in two stages afterwards.",
    gains=SMALLER,
    paper=Paper(
        title="LoRAShear: Efficient Large Language Model Structured Pruning and Knowledge Recovery",
        authors="Chen, Ding, Yadav, Zharkov, Liang",
        year=2023,
        url="https://arxiv.org/abs/2310.18356",
    ),
    task_families=("language-model",),
    patterns=("structured",),
    needs=Needs(calibration=True, gradients=True, training=True),
    parameters=LoRAShearParameters,
    removes="widths",
    holds="model",
)
