"""Figure of an artifact that its job's target limits, as it was measured in the end."""

from core.engine.latency.registry import engine_info
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.report import Report
from secateur_wire.errors import ExportFailed
from secateur_wire.job_body import Target
from secateur_wire.metrics import Metrics, Sizes


def target_figure(recipe: Recipe, metrics: Metrics, report: Report) -> tuple[float, float]:
    """Return the artifact's own figure, and the relative uncertainty of its measurement.

    Raises ExportFailed where the engine of the target could not be timed.
    """
    target = recipe.target
    assert target is not None
    if target.is_time:
        return _time_ratio(recipe, target, metrics)
    if target.parameters is not None:
        assert metrics.parameters is not None and metrics.parameters.nonzero is not None
        return metrics.parameters.nonzero, 0.0
    sizes = metrics.bytes or Sizes()
    if target.memory_bytes is not None:
        assert sizes.artifact is not None and sizes.cache is not None
        return sizes.artifact + sizes.cache, 0.0
    exported = report.exported(recipe.output.format)
    most = sizes.artifact if exported is None or exported.bound_bytes is None else exported.bound_bytes
    assert most is not None
    return most, 0.0


def _time_ratio(recipe: Recipe, target: Target, metrics: Metrics) -> tuple[float, float]:
    form = None if target.engine is None else engine_info(target.engine).form
    if form is None:
        latency = metrics.latency
        assert latency is not None and latency.ratio is not None
        if target.latency_ratio is not None:
            return latency.ratio, latency.spread or 0.0
        dense, pruned = latency.decode_dense_ms, latency.decode_pruned_ms
        assert dense is not None and pruned is not None
        return pruned / dense, latency.decode_spread or 0.0
    kind = recipe.export_types[form][0]
    speed = next((each.speed for each in metrics.exports if (each.format, each.type) == (form, kind)), None)
    if speed is None:
        raise ExportFailed(
            f"target.engine: tokens per second of the {kind} file were not measured in {target.engine}, so it cannot "
            "be told whether the target is met"
        )
    rate = speed.prefill if target.latency_ratio is not None else speed.decode
    return 1 / rate.ratio, rate.spread
