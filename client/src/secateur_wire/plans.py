"""Plans: a goal turned into a complete job, with the reason for each choice and an estimate of the outcome."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from secateur_wire.base import JsonObject, WireModel

Goal = Literal["speed", "size", "sparsity", "sensitivity"]
FigureName = Literal["perplexity_ratio", "bytes_ratio", "prefill_ratio", "decode_ratio", "seconds"]
FigureSource = Literal["jobs", "measurements", "account"]


class PlanBody(WireModel):
    """Request for a plan.

    `goal`: `speed` makes a smaller model that is faster on ordinary hardware (structured), `size` one with fewer bytes
    to store and ship (packed, and GGUF where the workers write it), `sparsity` zeros for a runtime that uses them
    (unstructured or n:m), `sensitivity` finds out what the model can lose. How much is given by `amount`, the share to
    remove (of the model's parameters with `speed`, of its bytes with `size`, of the prunable weights with `sparsity`),
    or by `keep_quality`, the largest perplexity allowed as a ratio to the dense model's: the planner takes the largest
    amount whose whole band stays within it. Where both are left out, it takes the largest amount whose estimate stays
    close to the dense model. `dataset` is the text to calibrate on; left out, the planner takes one that is registered,
    else text that the model writes itself. `pattern` is for `sparsity`: 2:4 or another n:m, which fixes the amount;
    left out, zeros may be anywhere.
    """

    model_config = ConfigDict(extra="forbid")

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
    """Estimate of one figure, as a ratio to the dense model (`seconds` as they are), with the band it should lie in.

    `source`: `jobs` of the same team, `measurements` that come with the release, or an `account` of what the files will
    hold. `basis` says in a sentence on how many of what it rests, and `count` how many.
    """

    estimate: float
    low: float
    high: float
    source: FigureSource
    count: int
    basis: str


class PlanPoint(WireModel):
    """Outcome to expect of one amount; figures that nothing is known of are left out."""

    amount: float
    figures: dict[FigureName, PlanFigure]


class PlanChoice(WireModel):
    """Choice of the planner: a field of the job's body by its path, the value, and why."""

    field: str
    value: JsonObject | list[str] | str | float | int | bool | None
    reason: str


class Plan(WireModel):
    """Plan for a model: the complete body of a job to submit, and what it should come to.

    `summary` says in one sentence what will be done. `figures` are those of the amount taken, `points` those of others,
    by amount, for the choice of another. `unknown` says which figures cannot be estimated, and why. `warnings` are
    those that the job will have.
    """

    object: Literal["plan"] = "plan"
    model: str
    goal: Goal
    amount: float | None
    job: JsonObject
    summary: str
    choices: list[PlanChoice]
    figures: dict[FigureName, PlanFigure]
    points: list[PlanPoint]
    unknown: list[str]
    warnings: list[str]
