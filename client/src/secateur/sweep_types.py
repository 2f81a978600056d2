"""Answers of the server about sweeps."""

from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from secateur.types import FINISHED, Answer, Problem

SweepStatus = Literal["running", "succeeded", "failed", "cancelled"]


class PointCounts(Answer):
    """Points of a sweep by state."""

    total: int
    waiting: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    not_run: int = 0


class Sweep(Answer):
    """Many jobs on one model as one thing. `waiting_for` says why no further job was started, such as a quota."""

    id: str
    name: str | None = None
    kind: str
    status: SweepStatus
    error: Problem | None = None
    waiting_for: str | None = None
    created_at: datetime
    finished_at: datetime | None = None
    model: str
    max_concurrent: int
    points: PointCounts

    @property
    def finished(self) -> bool:
        return self.status in FINISHED


class SweepFigures(Answer):
    """Figures measured by a point's job; None where it did not measure one."""

    parameters: float | None = None
    bytes: float | None = None
    latency_ms: float | None = None
    perplexity: float | None = None
    accuracy: float | None = None
    perplexity_ratio: float | None = None


class SweepPoint(Answer):
    """A point: what varies in it, its job, and whether any other is better in quality and cost."""

    number: int
    label: str
    values: dict[str, JsonValue]
    job: str | None = None
    status: str
    error: Problem | None = None
    figures: SweepFigures | None = None
    on_front: bool = False


class BestPoint(Answer):
    """The best of all points by one objective."""

    objective: str
    number: int
    label: str
    job: str
    value: float


class SearchOutcome(Answer):
    """Result of a search: `job` holds the artifact, None where no model keeps the limits (yet)."""

    number: int | None = None
    job: str | None = None
    jobs: int
    candidates: int
    nearest: SweepPoint | None = None
    message: str


class SweepResults(Answer):
    """A sweep's points beside one another."""

    sweep: Sweep
    points: list[SweepPoint]
    trade_off: dict[str, JsonValue]
    best: list[BestPoint]
    search: SearchOutcome | None = None
