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
        description="uniform; owl (Yin 2023: layers with more outlier activations stay denser); fisher: each linear "
        "layer's own rate, at which the next weight costs as much loss as in any other, by the gradients of a few "
        "calibration sequences; job:ID, a sensitivity job of the same layers, whose curves give each decoder layer "
        "such a rate; or an explicit list with one sparsity per decoder layer, which job:ID is replaced by.",
    )
    owl_outlier_ratio: float = Field(5.0, gt=0, description="owl: M, an outlier is above M times the mean.")
    owl_range: float = Field(0.08, ge=0, lt=1, description="owl: λ, sparsity stays within ±λ of the target.")
    fisher_sequences: int = Field(
        2, ge=1, le=4096, description="fisher: calibration sequences whose gradients are taken."
    )

    @property
    def is_listed(self) -> bool:
        """Return whether each layer's own sparsity is given."""
        return isinstance(self.allocation, list)

    @property
    def measured_allocation(self) -> str | None:
        """Return the allocation, where a pass over calibration text decides it."""
        return str(self.allocation) if self.allocation in ("owl", "fisher") else None
