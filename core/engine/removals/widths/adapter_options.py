"""Options of structured methods that train low-rank adapters while they prune."""

from typing import Literal

from pydantic import Field, field_validator

from core.engine.architectures.description import ModelDescription
from core.engine.options.axes import BudgetOptions
from core.engine.recovery.request import Recovery
from core.engine.removals.widths.options import WidthOptions
from secateur_wire.recovery import Lora

_QUICK_TOKENS = 512
"""Most tokens of a training step with `budget: quick`."""


class AdapterOptions(WidthOptions, BudgetOptions):
    """Parameters of methods that train LoRA adapters during selection: the training's layers, length and rate."""

    budget: Literal["quick", "standard"] = Field(
        "standard",
        description="standard: 312 steps of 128 sequences, as LoRAPrune is usually run. quick: 48 steps of 512 tokens, "
        "which a CPU does in minutes on a small model.",
    )
    lora: Lora = Field(default_factory=Lora, description="The adapters, on every linear layer of every block.")
    steps: int | None = Field(
        None,
        ge=10,
        le=1_000_000,
        description="Optimiser steps. Unset: 312, which is 20 000 sequences twice; with quick, 48.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Calibration sequences in a step. They are repeated as often as the steps need. Unset: 128; with "
        "quick, as many as make 512 tokens.",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak learning rate of AdamW. It falls along a cosine. Unset: 1e-4; with quick, 1e-3.",
    )

    @field_validator("lora")
    @classmethod
    def _everywhere(cls, lora: Lora) -> Lora:
        if lora.targets is not None:
            raise ValueError("targets: heads and channels are scored by adapters on all linear layers, so leave it out")
        return lora

    def training(self, sequence_length: int) -> Recovery:
        """Return the training that is part of the selection, on sequences of `sequence_length` tokens."""
        is_quick = self.budget == "quick"
        batch = max(1, _QUICK_TOKENS // sequence_length) if is_quick else 128
        return Recovery(
            method="lora",
            steps=self.steps or (48 if is_quick else 312),
            batch_size=self.batch_size or batch,
            learning_rate=self.learning_rate or (1e-3 if is_quick else 1e-4),
            sequence_length=sequence_length,
            seed=self.seed,
            lora=self.lora,
        )

    def forwards(self, description: ModelDescription, share: float, calibration: int, window: int) -> int:
        return 0
