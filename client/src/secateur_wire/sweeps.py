"""Sweeps: many jobs on one model, their points and their results."""

from datetime import datetime
from typing import Annotated, ClassVar, Generic, Literal

from pydantic import Field, JsonValue
from typing_extensions import TypeVar

from secateur_wire.base import JsonObject, OneOf, WireModel
from secateur_wire.jobs import JobError
from secateur_wire.states import FINISHED, PointStage, PointStatus, SweepStatus

SearchObjective = Literal["min_parameters", "min_bytes", "min_latency"]
Objective = Literal[SearchObjective, "min_perplexity", "max_accuracy"]
Cost = Literal["parameters", "bytes", "latency"]
"""Kind of cost that is compared with quality."""


class SkippedPoint(WireModel):
    """A point that cannot be a job, and the reason."""

    values: dict[str, JsonValue]
    reason: str


class PointCounts(WireModel):
    """Number of points by state; `running` includes those being cancelled."""

    total: int
    waiting: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    not_run: int = 0


class DenseSource(WireModel):
    """A figure of the dense model, with the job that measured it for all points."""

    kind: str
    name: str
    job: str


Search = TypeVar("Search", default=JsonObject)


class Sweep(WireModel, Generic[Search]):
    """Many jobs on one model. `waiting_for` says why no further job was started, such as a quota."""

    id: str
    object: Literal["sweep"] = "sweep"
    name: str | None = None
    kind: Annotated[str, OneOf(Literal["grid", "search"])]
    status: SweepStatus
    error: JobError | None = None
    waiting_for: str | None = None
    created_at: datetime
    finished_at: datetime | None = None
    model: str
    job: dict[str, JsonValue] = Field(default_factory=dict)
    grid: dict[str, list[JsonValue]] | None = None
    search: Search | None = None
    max_concurrent: int
    points: PointCounts
    skipped: list[SkippedPoint] = Field(default_factory=list)
    dense: list[DenseSource] = Field(default_factory=list)

    @property
    def finished(self) -> bool:
        return self.status in FINISHED


class Figures(WireModel):
    """Figures of a point's job; null where they were not measured.

    Over several evaluation sets or tasks, perplexity is the geometric mean and accuracy the mean, while ratios and
    drops are the worst ones. The latency ratio includes its noise, as in a gate. `length_ratio` is the factor between
    the lengths of answers.
    """

    not_promised: ClassVar[frozenset[str]] = frozenset(
        {
            "parameters",
            "bytes",
            "latency_ms",
            "perplexity",
            "accuracy",
            "perplexity_ratio",
            "bits_per_byte_ratio",
            "accuracy_drop",
            "task_accuracy_drop",
            "answer_kl",
            "length_ratio",
            "latency_ratio",
            "bytes_ratio",
        }
    )

    parameters: float | None = None
    bytes: float | None = None
    latency_ms: float | None = None
    perplexity: float | None = None
    accuracy: float | None = None
    perplexity_ratio: float | None = None
    bits_per_byte_ratio: float | None = None
    accuracy_drop: float | None = None
    task_accuracy_drop: float | None = None
    answer_kl: float | None = Field(None, exclude_if=lambda value: value is None)
    length_ratio: float | None = Field(None, exclude_if=lambda value: value is None)
    latency_ratio: float | None = None
    bytes_ratio: float | None = None


class Excess(WireModel):
    """A limit that was exceeded; `value` is null where it was not measured.

    `by` is relative for ratios, else absolute.
    """

    constraint: str
    limit: float
    value: float | None
    by: float | None


class SweepPoint(WireModel):
    """A point of a sweep.

    `values` are the varied fields. `stage` probe: measured by the search's cheaper evaluation. `on_front`: no other
    point is at least as good in quality and cost, and better in one.
    """

    number: int
    stage: Annotated[str, OneOf(PointStage)] = "full"
    label: str
    values: dict[str, JsonValue]
    job: str | None = None
    status: Annotated[str, OneOf(PointStatus)]
    error: JobError | None = None
    figures: Figures | None = None
    unmet: list[Excess] = Field(default_factory=list)
    on_front: bool = False


class BestPoint(WireModel):
    """The best point by one objective."""

    objective: Annotated[str, OneOf(Objective)]
    number: int
    label: str
    job: str
    value: float


class SearchOutcome(WireModel):
    """Result of a search.

    `point` and `job` are those of the winner, by the full evaluation; null where there is none yet. `jobs` is the
    number of jobs, for `candidates` points. If no point meets the limits, `nearest` is the one that misses them by
    least.
    """

    number: int | None = None
    job: str | None = None
    jobs: int
    candidates: int
    nearest: SweepPoint | None = None
    message: str


AnySweep = TypeVar("AnySweep", default=Sweep)
TradeOff = TypeVar("TradeOff", default=JsonObject)


class SweepResults(WireModel, Generic[AnySweep, TradeOff]):
    """A sweep's points side by side."""

    object: Literal["sweep_results"] = "sweep_results"
    sweep: AnySweep
    points: list[SweepPoint]
    trade_off: TradeOff
    best: list[BestPoint]
    search: SearchOutcome | None = None
