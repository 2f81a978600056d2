"""Choice of the next point of a sweep, and of its end: pure functions of the request and the points' rows."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from core.service.sweeps.figures import QUALITY, cost_of, unmet
from core.service.sweeps.grid import Document
from core.service.sweeps.schemas import Search
from core.service.sweeps.search import (
    Branch,
    NoWinner,
    Place,
    PointOutcome,
    ProbeStep,
    Step,
    VerifyStep,
    Winner,
    next_step,
)
from core.service.sweeps.states import ACTIVE
from secateur_wire.states import PointStage, PointStatus
from secateur_wire.sweeps import Figures


@dataclass(frozen=True)
class PointState:
    """Point with the state of its row and its job.

    `status` is waiting before it has a job, and failed if none could be queued. `is_wanted_again`: its ended job is to
    be tried once more.
    """

    number: int
    stage: PointStage
    values: Document
    pattern: str
    measures: str | None
    verifies: int | None
    job_id: str | None
    status: PointStatus
    figures: Figures | None
    is_wanted_again: bool = False

    @property
    def is_active(self) -> bool:
        return self.status in ACTIVE

    @property
    def is_to_start(self) -> bool:
        return self.status == "waiting" or self.is_wanted_again

    @property
    def has_ended(self) -> bool:
        return not self.is_active and not self.is_to_start


@dataclass(frozen=True)
class Start:
    """Action: queue this point's job, or queue its ended job again."""

    number: int


@dataclass(frozen=True)
class StartVerification:
    """Action: queue a job that measures this point in full."""

    number: int


@dataclass(frozen=True)
class Wait:
    """Action: wait until a job ends."""


@dataclass(frozen=True)
class SweepEnd:
    """End of the sweep; `is_success` if it has a result."""

    is_success: bool


Next = Start | StartVerification | Wait | SweepEnd


def next_of_grid(points: Sequence[PointState], measured: Container[str], max_concurrent: int) -> Next:
    """Return the next action of a grid.

    `measured` names the evaluations whose dense figures are known or cannot be had.
    """
    wanted = [point for point in points if point.is_to_start]
    chosen = _startable(wanted, points, measured, max_concurrent)
    if chosen is not None:
        return Start(chosen.number)
    if wanted or any(point.is_active for point in points):
        return Wait()
    return SweepEnd(any(point.status == "succeeded" for point in points))


def next_of_search(search: Search, points: Sequence[PointState], measured: Container[str], max_concurrent: int) -> Next:
    """Return the next action of a search; its points without a job are the places it has not tried."""
    again = _startable([point for point in points if point.is_wanted_again], points, measured, max_concurrent)
    if again is not None:
        return Start(again.number)
    step = search_step(search, points)
    is_busy = any(point.is_active or point.is_wanted_again for point in points)
    match step:
        case ProbeStep(numbers):
            by_number = {point.number: point for point in points}
            busy = {point.values["method"] for point in points if point.is_active or point.is_wanted_again}
            wanted = [by_number[number] for number in numbers if by_number[number].values["method"] not in busy]
            chosen = _startable(wanted, points, measured, max_concurrent)
            return Wait() if chosen is None else Start(chosen.number)
        case _ if is_busy:
            return Wait()
        case VerifyStep(number):
            return StartVerification(number)
        case Winner(_, is_verified):
            return SweepEnd(is_verified)
        case NoWinner():
            return SweepEnd(False)


def search_step(search: Search, points: Sequence[PointState]) -> Step:
    """Return the next step of the search, from the points that have ended."""
    ended = [point for point in points if point.has_ended]
    return next_step(
        branches_of(search, points),
        {point.number: outcome_of(search, point) for point in ended if point.verifies is None},
        {point.verifies: outcome_of(search, point) for point in ended if point.verifies is not None},
        verifies=search.probe is not None,
        jobs_left=search.max_jobs - sum(point.job_id is not None for point in points),
    )


def branches_of(search: Search, points: Sequence[PointState]) -> list[Branch]:
    """Return a branch for each method; methods of one pattern form a group of equal cost, except if latency counts."""
    branches = []
    for method in search.methods:
        mine = [point for point in points if point.verifies is None and point.values["method"] == method]
        places = sorted((_place(point) for point in mine), key=lambda place: place.sparsity)
        if mine:
            group = method if search.objective == "min_latency" else mine[0].pattern
            branches.append(Branch(method, group, places))
    return branches


def outcome_of(search: Search, point: PointState) -> PointOutcome | None:
    """Return the outcome of a finished point, None where it has no figures."""
    if point.figures is None:
        return None
    missed = unmet(search.subject_to, point.figures)
    cost = cost_of(search.objective, point.figures)
    return PointOutcome(
        keeps_quality=not any(each.constraint in QUALITY for each in missed),
        keeps_all=not missed and point.status == "succeeded",
        cost=cost,
    )


def _place(point: PointState) -> Place:
    sparsity = point.values["sparsity"]
    assert isinstance(sparsity, int | float), point
    return Place(point.number, float(sparsity))


def _startable(
    wanted: Iterable[PointState], points: Sequence[PointState], measured: Container[str], max_concurrent: int
) -> PointState | None:
    """Return the first point that may start now: a slot is free, and no active point measures figures it needs."""
    active = [point for point in points if point.is_active]
    if len(active) >= max_concurrent:
        return None
    measuring = {point.measures for point in active}
    return next(
        (
            point
            for point in wanted
            if point.measures is None or point.measures in measured or point.measures not in measuring
        ),
        None,
    )
