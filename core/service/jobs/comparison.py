"""Comparison of jobs: their different fields, their trade-off, and the pruning of each layer.

All functions except `compare_jobs` are pure: they take jobs as the API answers them, and the `layers` of their reports.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.methods.registry import get_method
from core.service.jobs.alternatives import job_with_measured
from core.service.jobs.noise import differs_measurably, is_same_share
from core.service.jobs.schemas import Job, JobBody
from core.service.jobs.service import get_jobs, is_of_kept_attempt
from core.service.jobs.tables import JobReportRow, JobRow
from core.service.jobs.trade_off import TASK_MEAN, TradeOff, short_name, trade_off
from secateur_wire.base import JsonObject
from secateur_wire.errors import InvalidRequest
from secateur_wire.sweeps import Cost

Row = Mapping[str, Any]
"""One layer of a report."""

LayerQuantity = Literal["sparsity", "error"]
"""Figures by which layers are compared."""

FEWEST, MOST = 2, 20
"""Minimum and maximum number of jobs in a comparison."""

_FIGURES = (
    "status",
    "error",
    "perplexity",
    "accuracy",
    "tasks",
    TASK_MEAN,
    "answers",
    "sparsity",
    "parameters",
    "bytes",
    "latency",
)
"""Figures in the order they are shown; other figures follow, sorted by name."""


class ComparedField(BaseModel):
    """One field of the requests (a dotted path in the job body) or one figure, with a value for each job.

    A value is null where the job has none. Figures count as different where the difference exceeds the measurement
    error.
    """

    name: str
    kind: Literal["request", "figure"]
    values: list[Any]
    differs: bool


class LayerFigures(BaseModel):
    """Layers of one job in the model's order: removed share and mean relative reconstruction error.

    The error is ‖(W−Ŵ)X‖/‖WX‖; null where it was not measured.
    """

    job: str
    layers: list[str]
    sparsity: list[float | None]
    error: list[float | None]

    def values(self, quantity: LayerQuantity) -> list[float | None]:
        """Return one of the figures, by layer."""
        return self.sparsity if quantity == "sparsity" else self.error


class Comparison(BaseModel):
    """Several jobs side by side, in the order of the request."""

    object: Literal["comparison"]
    jobs: list[Job]
    labels: list[str]
    fields: list[ComparedField]
    trade_off: TradeOff
    layers: list[LayerFigures]


def compare(
    jobs: Sequence[Job], layers: Mapping[str, Sequence[Row]], *, quality: str | None, cost: Cost | None
) -> Comparison:
    """Compare jobs by their fields, one quality against one cost, and the figures of their layers.

    `layers` has the report rows of each job that has a report. `quality` is perplexity:SET, bits_per_byte:SET,
    accuracy:SET or accuracy:TASK; None chooses the one that most jobs have. `cost` None chooses bytes or latency, the
    first in which the jobs differ.
    """
    labels = names_of(jobs)
    figures = [layer_figures(job.id, layers[job.id]) for job in jobs if layers.get(job.id)]
    return Comparison(
        object="comparison",
        jobs=list(jobs),
        labels=labels,
        fields=compared_fields(jobs),
        trade_off=trade_off(jobs, labels, quality=quality, cost=cost),
        layers=[each for each in figures if each.layers],
    )


def is_same_in_all(layers: Sequence[LayerFigures], quantity: LayerQuantity) -> bool:
    """Return whether at least two jobs have the figure, and the same one in every layer."""
    by_layer: dict[str, list[float]] = {}
    for each in layers:
        for name, value in zip(each.layers, each.values(quantity), strict=True):
            if value is not None:
                by_layer.setdefault(name, []).append(value)
    is_known_of_several = any(len(values) > 1 for values in by_layer.values())
    return is_known_of_several and all(map(is_same_share, by_layer.values()))


def compared_fields(jobs: Sequence[Job]) -> list[ComparedField]:
    """Return every field for which a job has a value."""
    requests, figures = [_request(job) for job in jobs], [_figures(job) for job in jobs]
    return [*_compared("request", requests), *_compared("figure", figures)]


def _compared(kind: Literal["request", "figure"], documents: Sequence[Mapping[str, Any]]) -> Iterator[ComparedField]:
    flat = [dict(_leaves(document)) for document in documents]
    for name in dict.fromkeys(name for document in flat for name in document):
        values = [document.get(name) for document in flat]
        if any(value is not None for value in values):
            differs = any(value != values[0] for value in values[1:])
            if differs and kind == "figure":
                differs = differs_measurably(name, flat)
            yield ComparedField(name=name, kind=kind, values=values, differs=differs)


def names_of(jobs: Sequence[Job]) -> list[str]:
    """Return a short, unique name for each job: method and sparsity, and the model where there are several."""
    several_models = len({job.model for job in jobs}) > 1
    names = []
    for job in jobs:
        parts = [short_name(job.model)] if several_models else []
        parts.append(job.method)
        if job.pattern and ":" in job.pattern:
            parts.append(job.pattern)
        elif job.sparsity is not None:
            parts.append(f"{job.sparsity:.0%}")
        if job.recovery is not None and get_method(job.method).prunes:
            parts.append(f"+ {job.recovery.method}")
        names.append(" ".join(parts))
    often = Counter(names)
    return [f"{name} …{job.id[-5:]}" if often[name] > 1 else name for name, job in zip(names, jobs, strict=True)]


def layer_figures(job_id: str, rows: Sequence[Row]) -> LayerFigures:
    """Return one figure for each layer, from the rows of a report.

    The linear layers of a decoder layer are averaged, weighted by their number of weights; its groups (heads, channels)
    have equal weight. Layers of a classifier are returned as they are.
    """
    by_layer: dict[str, list[Row]] = {}
    for row in rows:
        name = row["name"] if "kept_shape" in row else f"layer {row['layer']}"
        by_layer.setdefault(name, []).append(row)
    return LayerFigures(
        job=job_id,
        layers=list(by_layer),
        sparsity=[_removed(members) for members in by_layer.values()],
        error=[_error(members) for members in by_layer.values()],
    )


def _removed(rows: Sequence[Row]) -> float | None:
    shares = [(_share(row), row["in_features"] * row["out_features"] if "in_features" in row else 1) for row in rows]
    known = [(share, weight) for share, weight in shares if share is not None]
    total = sum(weight for _, weight in known)
    return sum(share * weight for share, weight in known) / total if total else None


def _share(row: Row) -> float | None:
    if "after" in row:
        return 1 - row["after"] / row["before"] if row["before"] else 0.0
    share: float | None = row.get("sparsity")
    return share


def _error(rows: Sequence[Row]) -> float | None:
    errors = [row["reconstruction_error"] for row in rows if row.get("reconstruction_error") is not None]
    return fmean(errors) if errors else None


def _request(job: Job) -> JsonObject:
    dumped = job.model_dump(mode="json", include={*JobBody.model_fields, "model_revision"})
    return {"model": dumped.pop("model"), "model_revision": dumped.pop("model_revision"), **dumped}


def _figures(job: Job) -> JsonObject:
    figures = {"status": job.status, "error": job.error.code if job.error else None, **(job.metrics or {})}
    places = {name: number for number, name in enumerate(_FIGURES)}
    return {name: figures[name] for name in sorted(figures, key=lambda name: (places.get(name, len(places)), name))}


def _leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        # Rows are no single figure; the report shows them.
        elif not (isinstance(value, list) and value and isinstance(value[0], Mapping)):
            yield f"{prefix}{name}", value


def compare_jobs(
    session: Session, team_id: str, job_ids: Sequence[str], *, quality: str | None = None, cost: Cost | None = None
) -> Comparison:
    """Compare jobs, each once. Raises NotFound, InvalidRequest where they are too few or too many."""
    ids = list(dict.fromkeys(job_ids))
    jobs = [job_with_measured(session, team_id, each) for each in get_jobs(session, team_id, ids[: MOST + 1])]
    if not FEWEST <= len(ids) <= MOST:
        raise InvalidRequest(f"job: name {FEWEST} to {MOST} different jobs, not {len(ids)}", param="job")
    reports = select(JobReportRow.job_id, JobReportRow.report["layers"]).join(JobRow, is_of_kept_attempt(JobReportRow))
    layers = {
        job_id: rows for job_id, rows in session.execute(reports.where(JobRow.id.in_(ids))) if isinstance(rows, list)
    }
    return compare(jobs, layers, quality=quality, cost=cost)
