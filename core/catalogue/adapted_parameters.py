"""Parameters of the structured methods that train low-rank adapters while they prune."""

from typing import Self

from pydantic import Field, model_validator

from core.engine.options.adapters import Adapted


class LoRAPruneParameters(Adapted):
    """Parameters of `loraprune`."""

    momentum: float = Field(
        0.9, ge=0, lt=1, description="Of the moving average of the importance: its weight of what was before."
    )


class LoRAShearParameters(Adapted):
    """Parameters of `lorashear`."""

    periods: int = Field(4, ge=1, le=1000, description="In each an equal part of the redundant groups goes.")
    epsilon: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="A redundant group x becomes zero when its step to x̂ has ⟨x̂, x⟩ < ε·‖x‖²: the larger, the sooner.",
    )
    exempt: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the bundles of heads, and of channels, of every layer that are not pruned: those whose "
        "absence alone costs most.",
    )
    bundles: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Parts, at most, into which the heads, and the channels, of a layer are divided to see what the "
        "absence of each costs. Unset: 8; quick: 4.",
    )

    @property
    def most_bundles(self) -> int:
        return self.bundles or (4 if self.budget == "quick" else 8)

    @property
    def probed_tokens(self) -> int:
        """Return the calibration tokens for measuring each bundle's absence, where a sequence is not longer."""
        return 256 if self.budget == "quick" else 8192

    def probed(self, layers: int) -> int:
        """Return the tokens of leaving out each bundle in turn, which runs half of the layers again on average."""
        return layers * self.most_bundles * self.probed_tokens if self.exempt else 0

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        steps = self.training(2).steps
        if steps < 10 * self.periods:
            raise ValueError(f"periods: {self.periods} need at least {10 * self.periods} steps, there are {steps}")
        return self
