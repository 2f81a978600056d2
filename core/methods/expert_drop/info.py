"""Expert drop: its description and parameters."""

from typing import Literal

from pydantic import Field

from core.engine.removals.experts.options import ExpertOptions
from core.methods.method_info import MethodInfo
from secateur_wire.methods import Needs, Paper

_GAINS = (
    "The model gets smaller: it takes less memory and its file is smaller on any hardware, without special "
    "kernels. Each token still goes to as many experts as before, so the number of operations stays. Where "
    "memory is the limit, as with few requests at once, it runs faster too."
)


class ExpertDropParameters(ExpertOptions):
    """Parameters of `expert-drop`."""

    score: Literal["reap", "frequency", "random"] = Field(
        "reap",
        description="Experts with the lowest score are removed. reap: the mean, over the calibration tokens routed to "
        "the expert, of its gate times the norm of its output. frequency: how many tokens are routed to it. "
        "random: the baseline.",
    )
    merge: bool = Field(
        False,
        description="Merge each expert that is removed into the remaining one with the most similar weights: both "
        "become their mean, weighted by the number of tokens that are routed to each.",
    )


INFO = MethodInfo(
    id="expert-drop",
    rank=125,
    title="Expert drop",
    summary="Removes whole experts of a mixture: those that add least to the tokens they get.",
    description="Removes whole experts from a mixture of experts, the same number from each layer, with their rows of "
    "the router. It removes those that add least to the tokens they get on calibration text. It takes "
    "forward passes only and holds one block in memory at a time. What remains is an ordinary, smaller "
    "mixture. Tokens of removed experts are routed to others; if the gates are not normalised, the outputs "
    "of all tokens change.",
    gains=_GAINS,
    paper=Paper(
        title="REAP the Experts: Why Pruning Prevails for One-Shot MoE compression",
        authors="Lasby, Lazarevich, Sinnadurai, Lie, Ioannou, Thangarasa",
        year=2025,
        url="https://arxiv.org/abs/2510.13999",
    ),
    task_families=("language-model",),
    patterns=("structured",),
    needs=Needs(calibration=True, gradients=False, training=False),
    parameters=ExpertDropParameters,
    removes="experts",
)
