"""Target of a job: whether the artifact is what was asked for."""

from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.report import LatencySearch, Report, TargetReport
from secateur_wire.base import JsonObject
from secateur_wire.job_body import Target
from secateur_wire.metrics import Metrics, Sizes, TargetReached
from secateur_wire.reports import GateResult


def add_target(recipe: Recipe, metrics: Metrics, report: Report, search: LatencySearch | None) -> GateResult | None:
    """Put what was asked and reached into metrics and report; the result of this limit, which is none of the gates.

    A latency is met within the spread of its timings. `search` is set where the sparsity was searched for.
    """
    target = recipe.target
    if target is None:
        return None
    reached, spread = _reached(target, metrics, report, recipe.output.format)
    met = reached <= target.limit * (1 + spread)
    figures: JsonObject = {
        "kind": target.kind,
        "asked": target.limit,
        "reached": reached,
        "met": met,
        "spread": spread,
        "sparsity": recipe.sparsity if search is None else search.sparsity,
    }
    metrics.target = TargetReached.model_validate(figures)
    searched = {} if search is None else {"search": search.document()}
    report.target = TargetReport.model_validate(figures | searched)
    within = f" (timings spread by {spread:.1%})" if target.kind == "latency_ratio" else ""
    name = f"target.{target.kind}"
    message = f"{name}: {target.limit:,} was asked for, the artifact reached {reached:,.6g}{within}"
    return GateResult(gate=name, limit=target.limit, figure=reached, on=None, kept=met, message=message, margin=0.0)


def _reached(target: Target, metrics: Metrics, report: Report, form: str) -> tuple[float, float]:
    """Return the artifact's own figure, and by how much, relative, the measurement of it may be off."""
    if target.latency_ratio is not None:
        latency = metrics.latency
        assert latency is not None and latency.ratio is not None
        return latency.ratio, latency.spread or 0.0
    if target.parameters is not None:
        assert metrics.parameters is not None and metrics.parameters.nonzero is not None
        return metrics.parameters.nonzero, 0.0
    sizes = metrics.bytes or Sizes()
    exported = report.exported(form)
    most = sizes.artifact if exported is None or exported.bound_bytes is None else exported.bound_bytes
    assert most is not None
    return most, 0.0
