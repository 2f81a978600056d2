"""Plans: a complete job body for a goal, with the reason for each choice and an estimate of the outcome."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur_wire.answers import AnswerBand
from secateur_wire.base import JsonObject, OneOf, WireModel
from secateur_wire.metrics import Alternative
from secateur_wire.requests import RequestObject

Goal = Literal["speed", "size", "sparsity", "sensitivity"]
FigureName = Literal[
    "answer_kl", "perplexity_ratio", "bits_per_byte_ratio", "bytes_ratio", "prefill_ratio", "decode_ratio", "seconds"
]
FigureSource = Literal["jobs", "measurements", "account"]


class PlanBody(RequestObject):
    """Request for a plan.

    `goal` is one of four. `speed` makes a smaller model that is faster on ordinary hardware (structured pruning).
    `size` makes a model with fewer bytes to store and ship (packed, and GGUF where the workers write it). `sparsity`
    makes zeros for a runtime that uses them (unstructured or n:m). `sensitivity` measures how much each layer can lose.

    `amount` is the share to remove: of the model's parameters with `speed`, of its bytes with `size`, of the prunable
    weights with `sparsity`. `keep_quality` is the largest allowed perplexity, as a ratio to the dense model's: the
    planner takes the largest amount whose whole band stays within it. Without both, the planner takes the largest
    amount whose estimate stays close to the dense model.

    `dataset` is the text to calibrate on. Without it, the planner takes a registered text, or else text that the model
    generates. `pattern` applies to `sparsity`: 2:4 or another n:m, which fixes the amount. Without it, zeros may be
    anywhere.
    """

    model: Annotated[str, Field(min_length=1, max_length=300)]
    goal: Goal
    amount: Annotated[float | None, Field(gt=0, lt=1)] = None
    keep_quality: Annotated[float | None, Field(gt=1, le=100)] = None
    dataset: Annotated[str | None, Field(min_length=1, max_length=300)] = None
    pattern: Annotated[str | None, Field(min_length=1, max_length=100)] = None

    @model_validator(mode="after")
    def _asks_for_one(self) -> Self:
        if self.amount is not None and self.keep_quality is not None:
            raise ValueError("give amount or keep_quality, not both: each decides how much is removed")
        return self


class PlanFigure(WireModel):
    """Estimate of one figure, as a ratio to the dense model, with its band.

    `seconds` are absolute, and so is `answer_kl`, in nats a token along the dense model's answers.

    `source`: `jobs` of the same team, `measurements` that come with the release, or an `account` of the bytes in the
    files. `basis` names the evidence in a sentence, and `count` is its number of jobs or measurements.
    """

    estimate: float
    low: float
    high: float
    source: Annotated[str, OneOf(FigureSource)]
    count: int
    basis: str


class PlanPoint(WireModel):
    """Expected outcome of one amount, by `FigureName`; unknown figures are left out."""

    amount: float
    figures: dict[str, PlanFigure]


class PlanChoice(WireModel):
    """Choice of the planner: a field of the job's body by its path, the value, and the reason."""

    field: str
    value: JsonObject | list[str] | str | float | int | bool | None
    reason: str


class Plan(WireModel):
    """Plan for a model: the complete body of a job to submit, and its expected outcome.

    `summary` describes the job in one sentence. `figures` are those of the chosen amount, by `FigureName`. `points` has
    the figures of other amounts too, for another choice. `answers` is the expected verdict on the answers, where jobs
    of the team compared some. `unknown` lists the figures that cannot be estimated, with the reasons. `warnings` are
    those that the job will have. `alternatives` are smaller copies of the model that need no pruning; `instead` is the
    body of a job that makes one of them, where the plan is not worth its cost.
    """

    object: Literal["plan"] = "plan"
    model: str
    goal: Annotated[str, OneOf(Goal)]
    amount: float | None
    job: JsonObject
    summary: str
    choices: list[PlanChoice]
    figures: dict[str, PlanFigure]
    points: list[PlanPoint]
    answers: Annotated[str, OneOf(AnswerBand)] | None = Field(None, exclude_if=lambda band: band is None)
    unknown: list[str]
    warnings: list[str]
    alternatives: list[Alternative] = Field(default_factory=list)
    instead: JsonObject | None = None
