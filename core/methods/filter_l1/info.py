"""Filters by L1 norm: its description and parameters."""

from typing import Literal

from pydantic import Field

from core.engine.options.allocation import LayerSparsities
from core.engine.options.iteration import Retraining
from core.engine.removals.filters.options import FilterParameters
from core.methods.method_info import SMALLER, MethodInfo
from core.methods.plan_offer import PlanOffer
from secateur_wire.methods import Needs, Paper


class FilterL1Parameters(FilterParameters):
    """Parameters of `filter-l1`."""

    selection: Literal["independent", "greedy"] = Field(
        "independent",
        description="independent: all filters are scored as they are. greedy: layers are scored in order, without the "
        "parts of filters that read what was already removed.",
    )
    order: Literal["smallest", "random", "largest"] = Field(
        "smallest",
        description="Which filters of a layer are removed first. random and largest are for comparison, as in the "
        "paper.",
    )
    rates: Literal["sensitivity", "uniform"] | LayerSparsities = Field(
        "uniform",
        description="Share of the filters that each layer loses. uniform: the same share. sensitivity: shares at which "
        "every layer costs the same loss, from a scan that prunes each layer alone. A list: one rate for "
        "each group of coupled layers, in order from the image on, scaled together to meet the sparsity; 0 "
        "spares the group.",
    )
    rounds: int = Field(1, ge=1, le=1000, description="Number of rounds that prune and retrain, each an equal part.")
    retrain_steps: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Training steps after each round. The job's recovery, if any, comes after the last.",
    )

    @property
    def retraining(self) -> Retraining:
        return Retraining(self.rounds, self.retrain_steps, self.retrain_batch_size)


INFO = MethodInfo(
    id="filter-l1",
    rank=190,
    title="Filters by L1 norm",
    summary="Removes the filters with the smallest sum of absolute weights, layer by layer, with everything coupled "
    "to them.",
    description="Removes the filters with the smallest sum of weights, with everything that reads them. It is quick, "
    "and good for a moderate share. With rates by sensitivity, layers that can lose more do. Retrain afterwards.",
    gains=SMALLER,
    paper=Paper(
        title="Pruning Filters for Efficient ConvNets",
        authors="Li, Kadav, Durdanovic, Samet, Graf",
        year=2016,
        url="https://arxiv.org/abs/1608.08710",
    ),
    task_families=("image-classification",),
    patterns=("structured",),
    needs=Needs(calibration=True, gradients=False, training=False),
    parameters=FilterL1Parameters,
    removes="filters",
    offers=(
        PlanOffer(
            goals=("speed",),
            place=10,
            reason="it removes filters by their weights alone, and training afterwards wins back what that costs",
            task="image-classification",
            pattern="structured",
        ),
    ),
)
