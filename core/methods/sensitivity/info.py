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
    title="Sensitivity",
    summary="Prunes nothing: measures the loss against the pruning rate of each layer alone, for any method that "
    "makes weights zero. A later job takes its layers' rates from it.",
    description="Removes nothing and makes no model. Prunes one layer after the other at several rates, "
    "measures how much the loss rises, and puts it back: the curves show which layers can lose "
    "much. A later job with the parameter allocation set to job:ID spreads its sparsity by them.",
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
