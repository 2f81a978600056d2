"""LLM-Pruner: its description and parameters."""

from typing import Literal

from pydantic import Field

from core.engine.removals.widths.options import RankedWidthOptions
from core.methods.method_info import SMALLER, MethodInfo
from secateur_wire.methods import Needs, Paper


class LLMPrunerParameters(RankedWidthOptions):
    """Parameters of `llm-pruner`."""

    paper_protects = (4, 2)

    importance: Literal["first_order", "mixed"] = Field(
        "first_order",
        description="Importance of a weight w with gradient g. first_order: |w·g|. mixed: |w·g − ½·F·w²|, where F is "
        "the mean of g² over samples (the diagonal of the Fisher information).",
    )
    aggregation: Literal["element_wise", "vector_wise"] = Field(
        "element_wise",
        description="How a unit's importance is computed from its weights. element_wise: the sum of their importances. "
        "vector_wise: the signed importances of a row or column are added before the absolute value is taken.",
    )


INFO = MethodInfo(
    id="llm-pruner",
    rank=90,
    title="LLM-Pruner",
    summary="Removes the heads and channels that matter least to the loss, estimated from gradients (its Taylor "
    "expansion).",
    description="Computes gradients on a little calibration text to estimate how much the loss would rise without each "
    "head and each group of channels, and removes the cheapest. The paper trains adapters afterwards; do so "
    "too (recovery).",
    gains=SMALLER,
    paper=Paper(
        title="LLM-Pruner: On the Structural Pruning of Large Language Models",
        authors="Ma, Fang, Wang",
        year=2023,
        url="https://arxiv.org/abs/2305.11627",
    ),
    task_families=("language-model",),
    patterns=("structured",),
    needs=Needs(calibration=True, gradients=True, training=False),
    parameters=LLMPrunerParameters,
    removes="widths",
)
