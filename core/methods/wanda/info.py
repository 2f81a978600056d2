"""Wanda: its description and parameters."""

from pydantic import Field

from core.engine.options.allocation import AllocationOptions
from core.engine.options.compensation import CompensationOptions
from core.engine.options.propagation import PropagationOptions
from core.engine.removals.weights.options import LayerSelection
from core.measurements.sentences import measured_losses
from core.methods.method_info import ZEROS_OR_N_M, MethodInfo
from core.methods.plan_offer import PlanOffer
from secateur_wire.methods import Needs, Paper


class WandaParameters(LayerSelection, AllocationOptions, PropagationOptions, CompensationOptions):
    """Parameters of `wanda`."""

    variant: bool = Field(
        False,
        description="Compare weights across rows, by the cumulative share of each row's score (the paper's variant). "
        "Otherwise the same number is removed from every row.",
    )


INFO = MethodInfo(
    id="wanda",
    rank=30,
    title="Wanda",
    summary="Removes the weights with the smallest |weight| × input norm in every output row. The others do not "
    "change.",
    description="Multiplies each weight's size by how strong its input is on a calibration text, and removes the "
    "weakest of every output row. It takes one forward pass and no training, and does not change the remaining "
    "weights. The cheapest choice that looks at activations; Frontier, SparseGPT or a recovery keeps more quality. "
    f"{measured_losses('wanda', 'zeros', 'unstructured')}",
    gains=ZEROS_OR_N_M,
    paper=Paper(
        title="A Simple and Effective Pruning Approach for Large Language Models",
        authors="Sun, Liu, Bair, Kolter",
        year=2023,
        url="https://arxiv.org/abs/2306.11695",
    ),
    task_families=("language-model", "image-classification"),
    patterns=("unstructured", "n:m"),
    needs=Needs(calibration=True, gradients=False, training=False),
    parameters=WandaParameters,
    removes="weights",
    reads="norms",
    offers=(
        PlanOffer(
            goals=("size", "sparsity"),
            place=40,
            reason="it needs the least memory of the methods that look at activations",
        ),
    ),
)
