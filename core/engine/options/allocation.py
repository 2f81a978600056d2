"""Options for how sparsity is spread over layers."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from secateur_wire.requests import spelled

SensitivityJob = Annotated[
    str, spelled(r"^job:[A-Za-z0-9_-]{1,100}$", "job: and the id of a job with method sensitivity")
]
LayerSparsities = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=1)]


class AllocationOptions(BaseModel):
    """Options for how the target sparsity is allocated to decoder layers."""

    allocation: Literal["uniform", "owl", "fisher"] | SensitivityJob | LayerSparsities = Field(
        "uniform",
        description="How the sparsity is spread over the layers. uniform: the same everywhere. owl: less in layers "
        "with more outlier activations (Yin 2023). fisher: in every linear layer, the next weight to remove costs "
        "the loss about the same, estimated from squared gradients (Fisher information) of a few calibration "
        "sequences. A list: one sparsity for each decoder layer. job:ID: such a list from the curves of a "
        "sensitivity job on a model with the same layers, which replaces it at submit.",
    )
    owl_outlier_ratio: float = Field(
        5.0, gt=0, description="owl: M. An activation is an outlier if it is above M times the mean."
    )
    owl_range: float = Field(0.08, ge=0, lt=1, description="owl: λ. A layer's sparsity stays within ±λ of the target.")
    fisher_sequences: int = Field(
        2, ge=1, le=4096, description="fisher: number of calibration sequences whose gradients are computed."
    )

    @property
    def is_listed(self) -> bool:
        return isinstance(self.allocation, list)

    @property
    def measured_allocation(self) -> str | None:
        """Return the allocation if it needs a pass over calibration text; None otherwise."""
        return str(self.allocation) if self.allocation in ("owl", "fisher") else None
