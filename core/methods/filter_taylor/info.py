"""Filters by Taylor expansion: its description and parameters."""

from typing import Annotated

from pydantic import Field

from core.engine.options.iteration import Retraining
from core.engine.removals.filters.options import FilterParameters
from core.methods.method_info import SMALLER, MethodInfo
from secateur_wire.methods import Needs, Paper


class FilterTaylorParameters(FilterParameters):
    """Parameters of `filter-taylor`."""

    filters_per_round: int | None = Field(
        None, ge=1, le=1_000_000, description="Filters removed in a round. Unset: a fiftieth of those at the start."
    )
    retrain_steps: int = Field(30, ge=0, le=1_000_000, description="Training steps between rounds.")
    flops_weight: Annotated[float, Field(ge=0, le=1e6)] = Field(
        0.0,
        description="λ: a filter's score falls by this much for each million operations that are saved with it. The "
        "paper uses 0.001.",
    )
    flops_reduction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Least share of the operations to remove, in addition to the sparsity, which may then be 0.",
    )

    @property
    def retraining(self) -> Retraining:
        """Return the training of one round; the number of rounds depends on the model."""
        return Retraining(1, self.retrain_steps, self.retrain_batch_size)


INFO = MethodInfo(
    id="filter-taylor",
    rank=200,
    title="Filters by Taylor expansion",
    summary="Removes a few filters of all layers at a time, those with the smallest estimated effect on the loss "
    "(first order), and trains in between.",
    description="Estimates from gradients on labelled images how much the loss would rise without each filter, "
    "removes a few of all layers, trains a little, and repeats. It is slower than going by norms, and better if much "
    "has to go. It can also reduce operations instead of parameters.",
    gains=SMALLER,
    paper=Paper(
        title="Pruning Convolutional Neural Networks for Resource Efficient Inference",
        authors="Molchanov, Tyree, Karras, Aila, Kautz",
        year=2016,
        url="https://arxiv.org/abs/1611.06440",
    ),
    task_families=("image-classification",),
    patterns=("structured",),
    needs=Needs(calibration=True, gradients=True, training=True),
    parameters=FilterTaylorParameters,
    removes="filters",
)
