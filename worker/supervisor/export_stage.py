"""The supervisor's part in exports: what the runner is told, and what its answer adds to metrics and report."""

from collections.abc import Callable
from pathlib import Path

from core.engine.exporters.registry import OFFERED
from core.pipeline.messages import ExportSpec
from core.pipeline.reports.report import Report
from secateur_wire.base import JsonObject
from secateur_wire.metrics import Metrics, Sizes


def add_export(
    run: Callable[[ExportSpec], JsonObject], form: str, artifact: Path, metrics: Metrics, report: Report
) -> None:
    """Have a verified artifact exported in the form that was asked for, where that is not the one it has."""
    if OFFERED[form].written != "after":
        return
    section = report.exported(form)
    known = {} if section is None else section.document()
    exported = known | run(ExportSpec(artifact=artifact, form=form, section=known))
    report.add_export(form, exported)
    sizes = metrics.bytes or Sizes()
    setattr(sizes, form, exported["bytes"])
    metrics.bytes = sizes
