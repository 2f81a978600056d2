"""Comparison of jobs: differences, quality against cost, and layer by layer; as a page, charts and CSV."""

from collections.abc import Sequence
from statistics import fmean
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.dependencies import DatabaseSession, Quality
from api.portal.rendering import page
from api.portal.session import Viewer
from api.portal.views.files import IfNoneMatch, chart, csv_file
from api.portal.views.picture import comparison_models, comparison_panels, differences, findings
from api.portal.views.trade_off import COSTS, pareto_plot, quality_in_words, trade_off_answer
from core.pipeline.reports.verdict import is_near_chance
from core.service.jobs import service
from core.service.jobs.comparison import (
    FEWEST,
    MOST,
    Comparison,
    LayerFigures,
    LayerQuantity,
    compare_jobs,
    is_same_in_all,
)
from secateur_wire.metrics import Alternative
from secateur_wire.sweeps import Cost

router = APIRouter()

HERE = "/portal/compare"
_LAYER_FIGURES: Final[dict[LayerQuantity, str]] = {
    "sparsity": "share removed",
    "error": "relative reconstruction error",
}
Jobs = Annotated[list[str], Query(max_length=10 * MOST, description="Ids; empty ones do not count.")]


@router.get("/compare")
def compare_page(
    request: Request,
    caller: Viewer,
    session: DatabaseSession,
    job: Jobs = [],  # noqa: B006 - FastAPI copies the default
    quality: Quality = None,
    cost: Cost | None = None,
    all_fields: Annotated[bool, Query(alias="all")] = False,
) -> Response:
    """Show the whole comparison; with fewer than two jobs, a page to choose some."""
    ids = _distinct(job)
    if len(ids) < FEWEST:
        return page(request, "compare/choose.html", {"jobs": service.get_jobs(session, caller.team_id, ids)})
    comparison = compare_jobs(session, caller.team_id, ids, quality=quality, cost=cost)
    labels, models = dict(zip(ids, comparison.labels, strict=True)), comparison_models(comparison)
    context = {
        "panels": comparison_panels(models, comparison.trade_off.quality),
        "findings": findings(models, comparison.trade_off.quality),
        "differences": differences(comparison.fields),
        "comparison": comparison,
        "answering": [
            (labels[job.id], words)
            for job in comparison.jobs
            if job.verdict is not None
            and (words := job.verdict.words if is_near_chance(job.verdict) else job.verdict.answers)
        ],
        "alternatives": _alternatives(comparison),
        "ids": ids,
        "labels": labels,
        "fields": [each for each in comparison.fields if all_fields or each.differs],
        "differing": sum(each.differs for each in comparison.fields),
        "all": all_fields,
        "quality_options": [(each, quality_in_words(each)) for each in comparison.trade_off.qualities],
        "quality_words": quality_in_words(comparison.trade_off.quality) if comparison.trade_off.quality else None,
        "cost_options": list(COSTS.items()),
        "cost_words": COSTS[comparison.trade_off.cost],
        "plot": pareto_plot(comparison.trade_off),
        "layer_figures": [
            (name, title, is_same_in_all(comparison.layers, name), _without(comparison, name))
            for name, title in _LAYER_FIGURES.items()
            if any(_known(each, name) for each in comparison.layers)
        ],
        "layer_names": _layer_names(comparison),
        "address": _Address(ids, quality, cost, all_fields),
        "most": MOST,
    }
    return page(request, "compare/compared.html", context)


@router.get("/compare.csv")
def compare_csv(caller: Viewer, session: DatabaseSession, job: Jobs) -> Response:
    """Download every field and figure of the jobs as CSV, one column per job."""
    comparison = compare_jobs(session, caller.team_id, _distinct(job))
    rows = [[each.name, each.kind, "yes" if each.differs else "no", *each.values] for each in comparison.fields]
    return csv_file("comparison.csv", [["field", "kind", "differs", *(each.id for each in comparison.jobs)], *rows])


@router.get("/compare/trade-off.{form}")
def trade_off_file(
    caller: Viewer,
    session: DatabaseSession,
    job: Jobs,
    form: Literal["png", "csv"],
    quality: Quality = None,
    cost: Cost | None = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Download quality against cost, with the Pareto front, as a picture or a table."""
    trade_off = compare_jobs(session, caller.team_id, _distinct(job), quality=quality, cost=cost).trade_off
    return trade_off_answer(trade_off, form, if_none_match)


@router.get("/compare/layers.svg")
def layers_svg(
    caller: Viewer,
    session: DatabaseSession,
    job: Jobs,
    figure: LayerQuantity,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Draw one figure of every layer, with a line for each job."""
    comparison = compare_jobs(session, caller.team_id, _distinct(job))
    return chart(figure + comparison.model_dump_json(), if_none_match, lambda: _draw_layers(comparison, figure))


class _Address:
    """Addresses of this comparison with one change each."""

    def __init__(self, ids: Sequence[str], quality: str | None, cost: Cost | None, all_fields: bool) -> None:
        self._ids = ids
        self._shown = {"quality": quality, "cost": cost}
        self._all = {"all": "1" if all_fields else None}

    def page(self, **changes: str | None) -> str:
        return self._of(HERE, self._shown | self._all | changes)

    def without(self, job_id: str) -> str:
        ids = [each for each in self._ids if each != job_id]
        return _Address(ids, None, None, False)._of(HERE, self._shown | self._all)

    def trade_off(self, form: str) -> str:
        return self._of(f"{HERE}/trade-off.{form}", self._shown)

    def layers(self, figure: str) -> str:
        return self._of(f"{HERE}/layers.svg", {"figure": figure})

    @property
    def csv(self) -> str:
        return self._of(f"{HERE}.csv", {})

    def _of(self, path: str, more: dict[str, str | None]) -> str:
        pairs = [("job", each) for each in self._ids] + [(name, value) for name, value in more.items() if value]
        return f"{path}?{urlencode(pairs)}"


def _distinct(ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(each.strip() for each in ids if each.strip()))


def _alternatives(comparison: Comparison) -> list[Alternative]:
    """Return the alternatives to pruning where all jobs are on one model; empty otherwise."""
    if len({job.model_revision for job in comparison.jobs}) > 1:
        return []
    return next((job.measured.alternatives for job in comparison.jobs if job.measured.alternatives), [])


def _known(layers: LayerFigures, figure: LayerQuantity) -> bool:
    return any(value is not None for value in layers.values(figure))


def _without(comparison: Comparison, figure: LayerQuantity) -> list[str]:
    """Return the labels of the jobs that have the figure of no layer."""
    known = {each.job for each in comparison.layers if _known(each, figure)}
    return [label for job, label in zip(comparison.jobs, comparison.labels, strict=True) if job.id not in known]


def _layer_names(comparison: Comparison) -> list[str]:
    """Return the layer names of all jobs, in the order of the job with the most layers."""
    longest_first = sorted(comparison.layers, key=lambda each: -len(each.layers))
    return list(dict.fromkeys(name for each in longest_first for name in each.layers))


def _draw_layers(comparison: Comparison, figure: LayerQuantity) -> str:
    from core.pipeline.reports.charts import Series, line_chart

    labels = {job.id: label for job, label in zip(comparison.jobs, comparison.labels, strict=True)}
    places = {name: number for number, name in enumerate(_layer_names(comparison))}
    series = []
    for each in comparison.layers:
        points = [
            (places[name], value)
            for name, value in zip(each.layers, each.values(figure), strict=True)
            if value is not None
        ]
        if points:
            x, y = zip(*points, strict=True)
            series.append(Series(f"{labels[each.job]}: mean {fmean(y):.3g}", x, y))
    title = _LAYER_FIGURES[figure]
    return line_chart(
        series,
        title=f"{title[0].upper()}{title[1:]} by layer",
        x_label="layer",
        y_label=title,
    )
