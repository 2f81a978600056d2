"""Results of a sweep: its points compared, the Pareto front, the best point, and the result of a search."""

from collections.abc import Mapping, Sequence

from core.service.jobs.schemas import Job
from core.service.jobs.trade_off import trade_off
from core.service.sweeps.figures import OBJECTIVES, cost_of, distance, objective_value, unmet
from core.service.sweeps.planning import PointState, search_step
from core.service.sweeps.schemas import Search, Sweep, SweepBody, SweepResults
from core.service.sweeps.search import Winner
from secateur_wire.errors import ConstraintsNotMet, SweepFailed
from secateur_wire.jobs import JobError
from secateur_wire.problems import StoredProblem
from secateur_wire.requests import LONGEST_SHOWN
from secateur_wire.sweeps import BestPoint, Cost, Excess, SearchOutcome, SweepPoint


def results_of(
    sweep: Sweep,
    body: SweepBody,
    points: Sequence[PointState],
    jobs: Mapping[str, Job],
    errors: Mapping[int, JobError],
    *,
    quality: str | None,
    cost: Cost | None,
) -> SweepResults:
    """Return the current results of a sweep.

    `jobs` are those of the points by id, `errors` belong to points that could not be queued. `quality` and `cost` are
    as in `core.service.jobs.comparison`.
    """
    succeeded = [jobs[point.job_id] for point in points if point.job_id and point.status == "succeeded"]
    labels = {point.job_id: label_of(point) for point in points}
    trade = trade_off(succeeded, [labels[job.id] for job in succeeded], quality=quality, cost=cost)
    front = {point.job for point in trade.points if point.job is not None and point.beaten_by is None}
    is_over = sweep.status != "running"
    shown = [
        shown_point(
            point,
            body.search,
            error=jobs[point.job_id].error if point.job_id else errors.get(point.number),
            on_front=point.job_id in front,
            is_over=is_over,
        )
        for point in points
    ]
    return SweepResults(
        sweep=sweep,
        points=shown,
        trade_off=trade,
        best=list(_best(points)),
        search=None if body.search is None else search_outcome(body.search, points, shown, is_over=is_over),
    )


def shown_point(
    point: PointState, search: Search | None, *, error: JobError | None, on_front: bool, is_over: bool
) -> SweepPoint:
    return SweepPoint(
        number=point.number,
        stage=point.stage,
        label=label_of(point),
        values=point.values,
        job=point.job_id,
        status="not_run" if point.status == "waiting" and is_over else point.status,
        error=error,
        figures=point.figures,
        unmet=_unmet(search, point),
        on_front=on_front,
    )


def label_of(point: PointState) -> str:
    """Return a label of the values that distinguish a point, such as `wanda · 50% · block_size 64`."""
    parts = [_shown(path, value) for path, value in point.values.items() if value is not None]
    return " · ".join([*parts, "in full"] if point.verifies is not None else parts)


def _shown(path: str, value: object) -> str:
    if path == "sparsity" and isinstance(value, int | float):
        return f"{100 * value:g}%"
    if path in ("method", "pattern"):
        return str(value)[:LONGEST_SHOWN]
    return f"{path.rpartition('.')[2]} {str(value)[:LONGEST_SHOWN]}"


def _unmet(search: Search | None, point: PointState) -> list[Excess]:
    return [] if search is None or point.figures is None else unmet(search.subject_to, point.figures)


def _best(points: Sequence[PointState]) -> Sequence[BestPoint]:
    """Return the best point by each objective; among equal points the first, full evaluations before probes."""
    best = []
    for objective in OBJECTIVES:
        ranked = [
            (cost, point.stage == "probe", point.number, point)
            for point in points
            if point.status == "succeeded"
            and point.figures is not None
            and (cost := cost_of(objective, point.figures)) is not None
        ]
        if not ranked:
            continue
        point = min(ranked, key=lambda each: each[:3])[3]
        assert point.figures is not None and point.job_id is not None
        value = objective_value(objective, point.figures)
        assert value is not None
        best.append(
            BestPoint(objective=objective, number=point.number, label=label_of(point), job=point.job_id, value=value)
        )
    return best


def search_outcome(
    search: Search, points: Sequence[PointState], shown: Sequence[SweepPoint], *, is_over: bool
) -> SearchOutcome:
    """Return the current result of the search."""
    step = search_step(search, points)
    winner = winner_of(points, step.number) if isinstance(step, Winner) and step.is_verified else None
    if winner is not None:
        message = f"{label_of(winner)} is the cheapest that keeps the limits."
    else:
        message = no_winner_message(search, points) if is_over else "The search goes on."
    near = None if winner is not None else nearest(search, points)
    return SearchOutcome(
        number=None if winner is None else winner.number,
        job=None if winner is None else winner.job_id,
        jobs=sum(point.job_id is not None for point in points),
        candidates=sum(point.verifies is None for point in points),
        nearest=None if near is None else shown[near.number],
        message=message,
    )


def winner_of(points: Sequence[PointState], number: int) -> PointState:
    """Return the point with the artifact: the full evaluation of a probe, where one was made."""
    return next((point for point in points if point.verifies == number and point.status == "succeeded"), points[number])


def nearest(search: Search, points: Sequence[PointState]) -> PointState | None:
    """Return the point that misses a limit by least, None without one; a full evaluation replaces its probe."""
    full = {point.verifies for point in points if point.verifies is not None and point.figures is not None}
    ranked = [
        (distance(missed), point.number, point)
        for point in points
        if point.number not in full and point.figures is not None
        if (missed := unmet(search.subject_to, point.figures))
    ]
    return min(ranked, key=lambda each: each[:2])[2] if ranked else None


def no_winner_message(search: Search, points: Sequence[PointState]) -> str:
    """Return the message that no model meets the limits, with the nearest figures."""
    step = search_step(search, points)
    if isinstance(step, Winner):
        return (
            f"max_jobs ({search.max_jobs}) left no job to measure {label_of(points[step.number])} in full, which is "
            "within the limits by the cheaper evaluation."
        )
    near = nearest(search, points)
    if near is None or near.figures is None:
        return "No model was measured: every job that was run failed."
    missed = max(unmet(search.subject_to, near.figures), key=lambda each: distance([each]))
    if missed.value is None:
        return f"It is not known whether a model is within the limits: {label_of(near)} has no {missed.constraint}."
    return (
        f"No measured model is within the limits. The nearest is {label_of(near)}: its {missed.constraint[4:]} is "
        f"{missed.value:.4g}, and the limit is {missed.limit:g} ({missed.value - missed.limit:+.4g})."
    )


def failure_of(body: SweepBody, points: Sequence[PointState]) -> StoredProblem:
    """Return the error of a sweep that ended without a result."""
    if body.search is not None:
        return ConstraintsNotMet(no_winner_message(body.search, points)).problem()
    return SweepFailed(f"none of {len(points)} points succeeded: see each job's error").problem()
