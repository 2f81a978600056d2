"""Sweeps: many jobs on one model, their points and what came of them."""

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
"""Cost of a model that quality is traded for."""


class SkippedPoint(WireModel):
    """A point that no job could be, and why."""

    values: dict[str, JsonValue]
    reason: str


class PointCounts(WireModel):
    """Points by state; `running` holds those being cancelled too."""

    total: int
    waiting: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    not_run: int = 0


class DenseSource(WireModel):
    """A figure of the dense model: the job that measured it, for all others."""

    kind: str
    name: str
    job: str


Search = TypeVar("Search", default=JsonObject)


class Sweep(WireModel, Generic[Search]):
    """Many jobs on one model as one thing. `waiting_for` says why no further job was started, such as a quota."""

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
    """Figures that a point's job measured; null where it did not. Of several evaluation sets or tasks, perplexity is
    the geometric mean and accuracy the mean, ratios and drops are the worst; the latency's ratio has its noise added,
    as a gate looks at it.
    """

    not_promised: ClassVar[frozenset[str]] = frozenset(
        {
            "parameters",
            "bytes",
            "latency_ms",
            "perplexity",
            "accuracy",
            "perplexity_ratio",
            "accuracy_drop",
            "task_accuracy_drop",
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
    accuracy_drop: float | None = None
    task_accuracy_drop: float | None = None
    latency_ratio: float | None = None
    bytes_ratio: float | None = None


class Excess(WireModel):
    """A limit that was not kept; `value` is null where it was not measured. `by` is relative for ratios, else
    absolute.
    """

    constraint: str
    limit: float
    value: float | None
    by: float | None


class SweepPoint(WireModel):
    """A point: `values` is what varies. `stage` probe: measured by the search's cheaper evaluation. `on_front`: no
    other point is at least as good in quality and cost, and better in one.
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
    """The best of all points by one objective."""

    objective: Annotated[str, OneOf(Objective)]
    number: int
    label: str
    job: str
    value: float


class SearchOutcome(WireModel):
    """Result of a search: the point and job of the winner, by the whole evaluation; null where there is none (yet).
    `jobs` were run, for `candidates` points. `nearest` is the point that missed the limits by least, where none keeps
    to them.
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
    """A sweep's points beside one another."""

    object: Literal["sweep_results"] = "sweep_results"
    sweep: AnySweep
    points: list[SweepPoint]
    trade_off: TradeOff
    best: list[BestPoint]
    search: SearchOutcome | None = None
