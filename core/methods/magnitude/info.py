"""Magnitude: its description and parameters."""

from typing import Literal

from pydantic import Field

from core.engine.options.allocation import AllocationOptions
from core.engine.options.compensation import CompensationOptions
from core.engine.options.propagation import PropagationOptions
from core.engine.removals.weights.options import LayerSelection
from core.methods.method_info import ZEROS_OR_N_M, MethodInfo
from core.methods.plan_offer import PlanOffer
from secateur_wire.methods import Needs, Paper


class MagnitudeParameters(LayerSelection, AllocationOptions, PropagationOptions, CompensationOptions):
    """Parameters of `magnitude`."""

    scope: Literal["row", "tensor", "model"] = Field(
        "tensor",
        description="Which weights are compared with each other: those of an output row, of a tensor, or of the whole "
        "model.",
    )

    @property
    def ranks_entire_model(self) -> bool:
        return self.scope == "model"


INFO = MethodInfo(
    id="magnitude",
    rank=20,
    title="Magnitude",
    summary="Removes the weights of smallest absolute value.",
    description="Removes the weights with the smallest absolute values: the oldest and simplest rule. It needs no "
    "data, and takes only as long as reading the weights. Image classifiers stand it well up to about half of their "
    "weights. Large language models do not, because a small weight behind a large activation matters; Wanda costs "
    "little more there and keeps far more quality.",
    gains=ZEROS_OR_N_M,
    paper=Paper(
        title="Learning both Weights and Connections for Efficient Neural Networks",
        authors="Han, Pool, Tran, Dally",
        year=2015,
        url="https://arxiv.org/abs/1506.02626",
    ),
    task_families=("language-model", "image-classification"),
    patterns=("unstructured", "n:m"),
    needs=Needs(calibration=False, gradients=False, training=False),
    parameters=MagnitudeParameters,
    removes="weights",
    offers=(
        PlanOffer(goals=("size", "sparsity"), place=50, reason="it needs no text and the least memory"),
        PlanOffer(
            goals=("size", "sparsity"),
            place=10,
            reason="image classifiers take it well up to about half of their weights",
            task="image-classification",
        ),
    ),
)
