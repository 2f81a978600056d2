"""Options of methods that alternate pruning and retraining, and of methods that use the loss's second derivatives."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

Curvature = Literal["gauss_newton", "empirical_fisher", "squared_error"]


@dataclass(frozen=True)
class Retraining:
    """Rounds of a method: each prunes, then trains for a number of steps."""

    rounds: int = 1
    steps: int = 0
    batch_size: int = 0

    @property
    def images(self) -> int:
        return self.rounds * self.steps * self.batch_size


class IterationOptions(BaseModel):
    """Alternation of deletion and retraining."""

    rounds: int = Field(5, ge=1, le=10_000, description="Number of rounds. Each deletes weights and retrains the rest.")
    growth: Literal["linear", "cubic"] = Field(
        "linear",
        description="How the removed share grows over the rounds. The same number of weights in each round, or many at "
        "first and few at the end: 1 − (1 − r/rounds)³.",
    )
    retrain_steps: int = Field(
        500, ge=0, le=1_000_000, description="Optimiser steps after each deletion, while deleted weights stay zero."
    )
    learning_rate: float = Field(
        1e-4, gt=0, le=1, description="Learning rate of AdamW: a tenth of the usual one, as Han (2015) retrains LeNet."
    )
    batch_size: int = Field(128, ge=1, le=65_536, description="Images in a step.")


class CurvatureOptions(BaseModel):
    """Parameters of methods that use curvature: an estimate of the loss's second derivatives in the weights."""

    curvature: Curvature = Field(
        "gauss_newton",
        description="How the Hessian of the loss is estimated. gauss_newton: JᵀHJ, where J holds the derivatives of "
        "the logits by the weights, and H is the Hessian of the cross-entropy by the logits. empirical_fisher: the "
        "mean of the outer products of each image's own gradient. squared_error: JᵀJ, as if the loss were the "
        "squared change of the logits (LeCun 1989, Hassibi 1993).",
    )
    curvature_images: int | None = Field(
        1000,
        ge=1,
        le=1_000_000_000,
        description="Number of calibration images for the estimate, drawn by the seed, or all (null in JSON).",
    )
