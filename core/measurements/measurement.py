"""Row of a measured table: a job on one model, and its figures as ratios to the dense model."""

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from secateur_wire.base import JsonObject

Share = Annotated[float, Field(gt=0, lt=1)]
Text = Literal["in_domain", "out_of_domain"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MeasuredModel(_Record):
    """Dense model: the family of its architecture, and its number of parameters."""

    name: str
    family: str
    parameters: int = Field(gt=0)


class Spread(_Record):
    """Mean of a figure over seeds, and its standard deviation if there are several."""

    mean: float = Field(gt=0)
    deviation: float | None = Field(None, ge=0)
    seeds: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _deviates_between_seeds(self) -> Self:
        if (self.deviation is None) != (self.seeds == 1):
            raise ValueError(f"a deviation belongs to several seeds, and only to them: there are {self.seeds}")
        return self


class LatencyRatio(_Record):
    """Ratio of pruned to dense milliseconds: the median over rounds, and the interquartile range of the rounds."""

    ratio: float = Field(gt=0)
    spread: float = Field(ge=0)


class Measurement(_Record):
    """Figures of one job.

    `sparsity` is the requested sparsity. With pattern `structured` it is a share of the model's parameters, and
    `blocks` is the corresponding share of the parameters of its decoder blocks. With other patterns it is a share of
    the prunable weights. `removed` is the share of the model's parameters that were removed. `perplexity` is pruned /
    dense. `recovery` is the body of the training that followed. `calibration` is the name of the calibration text.
    `seconds` is the time of pruning, and `processor_seconds` the time of all processes, including training. `latency`
    is None if it was not measured.
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
        """Return the budget that the job named; None if it named none."""
        budget = self.parameters.get("budget")
        return budget if isinstance(budget, str) else None

    @property
    def job(self) -> tuple[object, ...]:
        """Return the key of a row: the job, the model and the machine it ran on."""
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
    """File of measurements."""

    measurements: list[Measurement]
