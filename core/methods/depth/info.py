"""Depth: its description and parameters."""

from typing import Literal

from pydantic import Field

from core.engine.architectures.description import ModelDescription
from core.engine.options.base import BudgetOptions
from core.engine.options.compensation import RefitOptions
from core.engine.removals.layers.counts import removable_runs
from core.engine.removals.layers.options import LayerOptions
from core.measurements.sentences import measured_losses
from core.methods.method_info import SMALLER, MethodInfo
from core.methods.plan_offer import PlanOffer
from secateur_wire.errors import InvalidParameters
from secateur_wire.methods import Needs, Paper

QUICK_TOKENS = 1024
"""Number of tokens that `budget: quick` measures perplexity on, unless one sequence is longer."""


class DepthParameters(LayerOptions, BudgetOptions, RefitOptions):
    """Parameters of `depth`."""

    criterion: Literal["perplexity", "angular", "block_influence"] = Field(
        "perplexity",
        description="perplexity: remove one layer after the other, each time the one without which perplexity on the "
        "calibration text is lowest (quick: on at most 1024 tokens, and only layers that were among the best "
        "when removed alone are tried again). angular: remove the run of layers whose input and output point "
        "in the most similar directions. block_influence: remove the layers that change their input least, "
        "each judged alone.",
    )

    def check_removed_layers(self, description: ModelDescription, count: int) -> None:
        super().check_removed_layers(description, count)
        if self.criterion == "angular" and not removable_runs(description, count):
            raise InvalidParameters(
                f"parameters.criterion: {count} layers in a row cannot be removed, because "
                f"{description.architecture} needs a layer with {', '.join(description.known_as.required)}: use "
                "'perplexity' or 'block_influence', which may remove layers that are not in a row",
                param="parameters.criterion",
            )


INFO = MethodInfo(
    id="depth",
    rank=130,
    title="Depth",
    summary="Removes whole layers: those that perplexity needs least, or that change their input least.",
    description="Removes whole layers. What remains is an ordinary model with fewer layers, so it surely runs "
    "faster, in proportion to the layers removed. Large models lose surprisingly little with a few of their layers "
    "gone; small models lose much. Train it afterwards (recovery). "
    f"{measured_losses('depth', 'structured', 'structured')}",
    gains=SMALLER,
    paper=Paper(
        title="The Unreasonable Ineffectiveness of the Deeper Layers",
        authors="Gromov, Tirumala, Shapourian, Glorioso, Roberts",
        year=2024,
        url="https://arxiv.org/abs/2403.17887",
    ),
    task_families=("language-model",),
    patterns=("structured",),
    needs=Needs(calibration=True, gradients=False, training=False),
    parameters=DepthParameters,
    removes="layers",
    holds="model",
    offers=(
        PlanOffer(
            goals=("speed",),
            place=40,
            reason="it removes whole layers, which leaves the shapes of the others alone",
            pattern="structured",
            parameters={"budget": "quick"},
        ),
    ),
)
