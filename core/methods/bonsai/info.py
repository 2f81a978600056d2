"""Bonsai: its description and parameters."""

from math import ceil
from typing import Any, Literal

from pydantic import Field, model_validator

from core.engine.architectures.description import ModelDescription
from core.engine.options.base import BudgetOptions
from core.engine.removals.widths.options import WidthOptions
from core.methods.method_info import SMALLER, MethodInfo
from secateur_wire.methods import Needs, Paper

FEWEST_MASKS = 10
"""Masks that a round has at least: five folds of pairs are held out in turn."""


class BonsaiParameters(WidthOptions, BudgetOptions):
    """Parameters of `bonsai`. Those that are unset follow from the budget."""

    budget: Literal["quick", "standard"] = Field(
        "standard",
        description="standard: the paper's 200 masks in each round, 5 % of the units' parameters removed in each "
        "round, and 32 sequences for each mask. quick: 32 masks, 15 % and 4 sequences, which a CPU does in minutes "
        "on a small model.",
    )
    masks_per_round: int = Field(
        200,
        ge=FEWEST_MASKS,
        le=10_000,
        multiple_of=2,
        description="Sub-models measured in every round, in complementary pairs.",
    )
    round_share: float = Field(
        0.05,
        gt=0,
        le=1,
        description="p: share of the units' parameters that each round removes. Twice that share are candidates.",
    )
    sequences: int = Field(
        32,
        ge=1,
        le=4096,
        description="Calibration sequences on which each mask is measured, drawn anew in every round.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_budget(cls, given: Any) -> Any:
        quick = {"masks_per_round": 32, "round_share": 0.15, "sequences": 4}
        return quick | given if isinstance(given, dict) and given.get("budget") == "quick" else given

    def forwards(self, description: ModelDescription, share: float, calibration: int, window: int) -> int:
        """Return the tokens of all rounds; each runs its sequences once for the prior and once for each mask."""
        rounds = ceil(share * description.parameters / description.prunable_parameters / self.round_share)
        return rounds * (1 + self.masks_per_round) * min(self.sequences * window, calibration)


INFO = MethodInfo(
    id="bonsai",
    rank=100,
    title="Bonsai",
    summary="Removes the heads and channels that perplexity needs least, estimated by a regression over many masked "
    "versions of the model.",
    description="Runs many versions of the model with random parts switched off, and learns from their perplexities "
    "which heads and channels matter. It needs forward passes only, so no more memory than running the "
    "model. It needs many of them: hours for a large model with the paper's budget, minutes with the quick "
    "one.",
    gains=SMALLER,
    paper=Paper(
        title="Everybody Prune Now: Structured Pruning of LLMs with only Forward Passes",
        authors="Dery, Kolawole, Kagy, Smith, Neubig, Talwalkar",
        year=2024,
        url="https://arxiv.org/abs/2402.05406",
    ),
    task_families=("language-model",),
    patterns=("structured",),
    needs=Needs(calibration=True, gradients=False, training=False),
    parameters=BonsaiParameters,
    removes="widths",
    holds="model",
)
