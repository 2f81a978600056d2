"""Sensitivity: its description and parameters."""

from core.engine.options.base import MethodParameters
from core.engine.options.sensitivity import SensitivityOptions
from core.methods.method_info import UNCHANGED, MethodInfo
from core.methods.plan_offer import PlanOffer
from secateur_wire.methods import Needs, Paper


class SensitivityParameters(SensitivityOptions, MethodParameters):
    """Parameters of `sensitivity`."""


INFO = MethodInfo(
    id="sensitivity",
    rank=150,
    measures=True,
    title="Sensitivity",
    summary="Prunes nothing. Measures how the loss rises with the pruning rate of each layer alone, for any method "
    "that makes weights zero. A later job can take its rates from the result.",
    description="Removes nothing and makes no model. It prunes one layer at several rates, measures how much the loss "
    "rises, puts the layer back, and goes on to the next. The curves show which layers can lose much. A "
    "later job with the parameter allocation set to job:ID spreads its sparsity by them.",
    gains=UNCHANGED,
    paper=Paper(
        title="Learning both Weights and Connections for Efficient Neural Networks",
        authors="Han, Pool, Tran, Dally",
        year=2015,
        url="https://arxiv.org/abs/1506.02626",
    ),
    task_families=("language-model", "image-classification"),
    patterns=(),
    needs=Needs(calibration=False, gradients=False, training=False),
    parameters=SensitivityParameters,
    offers=(
        PlanOffer(
            goals=("sensitivity",),
            place=10,
            reason="wanda is the cheapest method that looks at activations",
            parameters={"method": "wanda"},
        ),
        *(
            PlanOffer(
                goals=("sensitivity",),
                place=20,
                reason="magnitude can be measured on any model",
                task=task,
                parameters={"method": "magnitude"},
            )
            for task in ("language-model", "image-classification")
        ),
    ),
)
