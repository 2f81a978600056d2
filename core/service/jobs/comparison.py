"""Comparison of jobs: the fields that differ, the Pareto front, and the pruning of each layer.

Plain functions of jobs as they are answered and of the `layers` of their reports.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import Any, Literal

from pydantic import BaseModel

from core.service.jobs.schemas import Job, JobBody

FEWEST, MOST = 2, 20
"""Fewest and most jobs that can be compared at once."""

Cost = Literal["parameters", "bytes", "latency"]
Figures = Mapping[str, Any]

_COSTS: dict[Cost, tuple[str, str, str]] = {
    "parameters": ("parameters", "dense", "nonzero"),
    "bytes": ("bytes", "dense", "artifact"),
    "latency": ("latency", "dense_ms", "pruned_ms"),
}
"""Keys of each cost in the metrics: its entry, and in it the dense model's and the pruned one's."""
_TASK_MEAN = "task_mean"
_FIGURES = (
    "status",
    "error",
    "perplexity",
    "accuracy",
    "tasks",
    _TASK_MEAN,
    "sparsity",
    "parameters",
    "bytes",
    "latency",
)
"""Figures in the order they are shown; all others follow, by name."""


class ComparedField(BaseModel):
    """One field of the requests (dotted, as in the job body), or one figure, of every job in turn; null where a job has
    none.
    """

    name: str
    kind: Literal["request", "figure"]
    values: list[Any]
    differs: bool


class TradeOffPoint(BaseModel):
    """A model by what it costs and how good it is. `job` is null for a dense model. `beaten_by` is the place in the
    list of a point that is at least as good in both and better in one; null for a point on the Pareto front.
    """

    label: str
    job: str | None
    quality: float
    cost: float
    beaten_by: int | None


class TradeOff(BaseModel):
    """Quality against cost, of the jobs that have both figures. `qualities` is what some of the jobs measured. Lower
    perplexity is better, higher accuracy, and lower cost always.
    """

    quality: str | None
    qualities: list[str]
    cost: Cost
    points: list[TradeOffPoint]
    without: list[str]
    notes: list[str]


class LayerFigures(BaseModel):
    """A job's layers in the model's order: the share of each that was removed, and its mean relative reconstruction
    error ‖(W−Ŵ)X‖/‖WX‖; null where that was not measured.
    """

    job: str
    layers: list[str]
    sparsity: list[float | None]
    error: list[float | None]


class Comparison(BaseModel):
    """Jobs beside one another, in the order they were named."""

    object: Literal["comparison"]
    jobs: list[Job]
    labels: list[str]
    fields: list[ComparedField]
    trade_off: TradeOff
    layers: list[LayerFigures]


def compare(
    jobs: Sequence[Job], layers: Mapping[str, Sequence[Figures]], *, quality: str | None, cost: Cost
) -> Comparison:
    """Compare jobs by their fields, one quality against one cost, and the figures of their layers.

    `layers` has the rows of each job with a report; `quality` is perplexity:SET, accuracy:SET or accuracy:TASK, or None
    for the one that most jobs have.
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


def compared_fields(jobs: Sequence[Job]) -> list[ComparedField]:
    """Return every field that one of the jobs has a value of."""
    requests, figures = [_request(job) for job in jobs], [_figures(job) for job in jobs]
    return [*_compared("request", requests), *_compared("figure", figures)]


def _compared(kind: Literal["request", "figure"], documents: Sequence[Mapping[str, Any]]) -> Iterator[ComparedField]:
    flat = [dict(_leaves(document)) for document in documents]
    for name in dict.fromkeys(name for document in flat for name in document):
        values = [document.get(name) for document in flat]
        if any(value is not None for value in values):
            differs = any(value != values[0] for value in values[1:])
            yield ComparedField(name=name, kind=kind, values=values, differs=differs)


def names_of(jobs: Sequence[Job]) -> list[str]:
    """Return a short, unique name for each job: method and sparsity, with the model where there are several."""
    several_models = len({job.model for job in jobs}) > 1
    names = []
    for job in jobs:
        parts = [_short(job.model)] if several_models else []
        parts.append(job.method)
        if job.pattern and ":" in job.pattern:
            parts.append(job.pattern)
        elif job.sparsity is not None:
            parts.append(f"{job.sparsity:.0%}")
        if job.recovery is not None and job.method != "recover":
            parts.append(f"+ {job.recovery.method}")
        names.append(" ".join(parts))
    often = Counter(names)
    return [f"{name} …{job.id[-5:]}" if often[name] > 1 else name for name, job in zip(names, jobs, strict=True)]


def _short(model: str) -> str:
    return f"job:…{model[-5:]}" if model.startswith("job:") else model


def trade_off(jobs: Sequence[Job], labels: Sequence[str], *, quality: str | None, cost: Cost) -> TradeOff:
    """Return the chosen quality of each job, and of each dense model they began with, against the chosen cost."""
    measured = Counter(name for job in jobs for name in _qualities(job))
    chosen = quality or next((name for name, _ in measured.most_common(1)), None)
    points: list[TradeOffPoint] = []
    dense: dict[tuple[str, float], list[tuple[float, str]]] = {}
    used: list[Job] = []
    for job, label in zip(jobs, labels, strict=True):
        figures = _qualities(job).get(chosen or "")
        place, before, after = _COSTS[cost]
        spent = (job.metrics or {}).get(place) or {}
        if figures is None or spent.get(after) is None:
            continue
        used.append(job)
        points.append(
            TradeOffPoint(label=label, job=job.id, quality=figures["pruned"], cost=spent[after], beaten_by=None)
        )
        if figures.get("dense") is not None and spent.get(before) is not None:
            dense.setdefault((job.model, figures["dense"]), []).append((spent[before], label))
    measurements = Counter(model for model, _ in dense)
    for (model, reached), costs in dense.items():
        by = f" (of {costs[0][1]})" if measurements[model] > 1 else ""
        middle = median(spent for spent, _ in costs)
        points.append(
            TradeOffPoint(label=f"{_short(model)}, dense{by}", job=None, quality=reached, cost=middle, beaten_by=None)
        )
    sign = 1 if chosen is None or chosen.startswith("perplexity") else -1
    front = beaten_by([(sign * each.quality, each.cost) for each in points])
    ids = {job.id for job in used}
    return TradeOff(
        quality=chosen,
        qualities=sorted(measured, key=lambda name: (-measured[name], name)),
        cost=cost,
        points=[point.model_copy(update={"beaten_by": by}) for point, by in zip(points, front, strict=True)],
        without=[job.id for job in jobs if job.id not in ids],
        notes=_notes(used, chosen, cost),
    )


def beaten_by(points: Sequence[tuple[float, float]]) -> list[int | None]:
    """Return for each point the index of a point on the Pareto front that dominates it; None for those on the front.

    Smaller is better in both coordinates; one point dominates another if it is nowhere worse and somewhere better.
    """
    front = [
        number
        for number, (x, y) in enumerate(points)
        if not any(a <= x and b <= y and (a < x or b < y) for a, b in points)
    ]
    members = set(front)
    return [
        None if number in members else next(each for each in front if points[each][0] <= x and points[each][1] <= y)
        for number, (x, y) in enumerate(points)
    ]


def layer_figures(job_id: str, rows: Sequence[Figures]) -> LayerFigures:
    """Return one figure a layer, from the rows of a report.

    Linear layers of a decoder layer are averaged by their number of weights, groups (heads, channels) equally. A
    classifier's layers stand for themselves.
    """
    by_layer: dict[str, list[Figures]] = {}
    for row in rows:
        name = row["name"] if "kept_shape" in row else f"layer {row['layer']}"
        by_layer.setdefault(name, []).append(row)
    return LayerFigures(
        job=job_id,
        layers=list(by_layer),
        sparsity=[_removed(members) for members in by_layer.values()],
        error=[_error(members) for members in by_layer.values()],
    )


def _removed(rows: Sequence[Figures]) -> float | None:
    shares = [(_share(row), row["in_features"] * row["out_features"] if "in_features" in row else 1) for row in rows]
    known = [(share, weight) for share, weight in shares if share is not None]
    total = sum(weight for _, weight in known)
    return sum(share * weight for share, weight in known) / total if total else None


def _share(row: Figures) -> float | None:
    if "after" in row:
        return 1 - row["after"] / row["before"] if row["before"] else 0.0
    share: float | None = row.get("sparsity")
    return share


def _error(rows: Sequence[Figures]) -> float | None:
    errors = [row["reconstruction_error"] for row in rows if row.get("reconstruction_error") is not None]
    return fmean(errors) if errors else None


def _request(job: Job) -> dict[str, Any]:
    dumped = job.model_dump(mode="json", include={*JobBody.model_fields, "model_revision"})
    return {"model": dumped.pop("model"), "model_revision": dumped.pop("model_revision"), **dumped}


def _figures(job: Job) -> dict[str, Any]:
    figures = {"status": job.status, "error": job.error.code if job.error else None, **(job.metrics or {})}
    places = {name: number for number, name in enumerate(_FIGURES)}
    return {name: figures[name] for name in sorted(figures, key=lambda name: (places.get(name, len(places)), name))}


def _leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif not (isinstance(value, list) and value and isinstance(value[0], Mapping)):  # rows, which the report has
            yield f"{prefix}{name}", value


def _qualities(job: Job) -> dict[str, Figures]:
    """Return the qualities that the job measured, dense and pruned, by name."""
    metrics = job.metrics or {}
    named = {f"perplexity:{name}": figures for name, figures in (metrics.get("perplexity") or {}).items()}
    for place in ("accuracy", "tasks"):
        named |= {f"accuracy:{name}": figures for name, figures in (metrics.get(place) or {}).items()}
    if len(metrics.get("tasks") or {}) > 1:
        named[f"accuracy:{_TASK_MEAN}"] = metrics.get(_TASK_MEAN) or {}
    return {name: figures for name, figures in named.items() if figures.get("pruned") is not None}


def _notes(jobs: Sequence[Job], quality: str | None, cost: Cost) -> list[str]:
    """Return notes on all that makes the figures less comparable than they look."""
    notes = []
    if len({job.model_revision for job in jobs}) > 1:
        notes.append(
            "The jobs began with different models"
            + (
                "; perplexities are comparable only between models with the same tokenizer."
                if quality and quality.startswith("perplexity")
                else "."
            )
        )
    figures = [_qualities(job)[quality] for job in jobs if quality]
    for name, said in (("sequence_length", "windows of {} tokens"), ("samples", "{} samples")):
        known = {each[name] for each in figures if each.get(name) is not None}
        if len(known) > 1:
            notes.append(f"Quality was measured on {said.format(_several(known))}: not the same measurement.")
    if quality and quality.startswith("perplexity"):
        samples = {job.evaluation.samples for job in jobs}
        if len(samples) > 1:
            counts = sorted("all" if each is None else str(each) for each in samples)
            notes.append(f"Perplexity was measured on {' and '.join(counts)} windows: not the same measurement.")
    if cost == "latency" and len(jobs) > 1:
        notes.append("Each latency is of its job's own run; a dense model's is the middle of those measured.")
        for name, said in (("device", "devices"), ("sequence_length", "sequence lengths"), ("batch", "batch sizes")):
            known = {(job.metrics or {})["latency"].get(name) for job in jobs}
            if len(known) > 1:
                notes.append(f"Latency was measured on different {said}: {_several(known)}.")
    return notes


def _several(values: set[Any]) -> str:
    return " and ".join(sorted(map(str, values)))
