"""The supervisor's part in packed and hashed files: what the runner is told, and their bytes."""

from collections.abc import Callable
from pathlib import Path

from core.pipeline.reports.report import Hashed, Packed, Report
from secateur_wire.base import JsonObject
from secateur_wire.metrics import Metrics, Sizes
from worker.runner.specs import HashedTensor, HashSpec, PackSpec


def add_packed(
    run: Callable[[PackSpec | HashSpec], JsonObject],
    artifact: Path,
    metrics: Metrics,
    report: Report,
    *,
    is_packed: bool,
) -> None:
    """Have the artifact's weights packed, where that `is_packed`, and hashed, where the report has layers for it."""
    sizes = metrics.bytes or Sizes()
    if is_packed:
        report.packed = Packed.model_validate(run(PackSpec(artifact=artifact)))
        sizes.packed = report.packed.bytes
        metrics.bytes = sizes
    if report.hashed is not None:
        hashed = report.hashed
        tensors = [HashedTensor(tensor=each.tensor, seed=each.seed, buckets=each.buckets) for each in hashed.layers]
        report.hashed = Hashed.model_validate(hashed.document() | run(HashSpec(artifact=artifact, tensors=tensors)))
        sizes.hashed = report.hashed.bytes
        metrics.bytes = sizes
