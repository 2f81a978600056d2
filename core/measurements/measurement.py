"""One row of a measured table: a job on one model, and its figures as ratios to the dense model."""

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from secateur_wire.base import JsonObject

Share = Annotated[float, Field(gt=0, lt=1)]
Text = Literal["in_domain", "out_of_domain"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MeasuredModel(_Record):
    """The dense model: its architecture's family, and its number of parameters."""

    name: str
    family: str
    parameters: int = Field(gt=0)


class Spread(_Record):
    """A figure over seeds: its mean, and its standard deviation where there are several."""

    mean: float = Field(gt=0)
    deviation: float | None = Field(None, ge=0)
    seeds: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _deviates_between_seeds(self) -> Self:
        if (self.deviation is None) != (self.seeds == 1):
            raise ValueError(f"a deviation belongs to several seeds, and only to them: there are {self.seeds}")
        return self


class LatencyRatio(_Record):
    """Pruned / dense milliseconds: the median over rounds, and the rounds' interquartile range."""

    ratio: float = Field(gt=0)
    spread: float = Field(ge=0)


class Measurement(_Record):
    """Figures of one job.

    `sparsity` is what the job asked for: with pattern `structured` a share of the model's parameters, `blocks` the same
    as a share of its decoder blocks'; else a share of the prunable weights. `removed` is the share of the model's
    parameters that the model came to lack. `perplexity` is pruned / dense. `recovery` is the body of the training that
    followed. `calibration` is the text that it was calibrated on, by its name. `seconds` are those of pruning,
    `processor_seconds` of all processes, training included. `latency` is None where it was not measured.
    """

    model: MeasuredModel
    method: str
    pattern: str
    layout: Literal["uniform", "per_layer"] = "uniform"
    parameters: JsonObject
    recovery: JsonObject | None = None
    calibration: str | None = None
    calibration_tokens: int = Field(ge=0)
    sparsity: Share
    blocks: Share | None = None
    removed: Share | None = None
    perplexity: dict[Text, Spread]
    prefill: LatencyRatio | None = None
    decode: LatencyRatio | None = None
    seconds: Spread
    processor_seconds: Spread
    peak_bytes: int = Field(gt=0)
    machine: str
    threads: int = Field(ge=1)
    measured: date
    releases: str

    @property
    def budget(self) -> str | None:
        """Return the budget that the job named; None where it named none."""
        budget = self.parameters.get("budget")
        return budget if isinstance(budget, str) else None

    @property
    def job(self) -> tuple[object, ...]:
        """Return what tells one row from another: the job, and the model and machine it ran on."""
        return (
            self.model,
            self.method,
            self.pattern,
            self.layout,
            repr(sorted(self.parameters.items())),
            repr(self.recovery),
            self.calibration_tokens,
            round(self.sparsity, 6),
            self.machine,
        )


class Measurements(_Record):
    """A file of them."""

    measurements: list[Measurement]
