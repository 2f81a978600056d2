"""The supervisor's part in recovery: what the runner is told, and what its answer changes in metrics and report."""

from pathlib import Path
from typing import Any

from core.engine.recovery.registry import RECOVERIES
from core.engine.recovery.request import Recovery, stage_texts
from core.methods.registry import get_method
from core.pipeline.messages import ModelSource, PruneSpec, RecoverSpec, TextSource
from core.pipeline.reports.report import Report
from core.pipeline.results import RecoveryOutput
from core.service.jobs.queue import Claim
from core.service.sources.references import TextReference
from secateur_wire.metrics import Metrics, Parameters, Sparsity
from worker.supervisor.inputs import JobInputs


def recover_spec(claim: Claim, inputs: JobInputs, spec: PruneSpec, artifact: Path) -> RecoverSpec | None:
    """Return the spec of recovery, text and teacher fetched; None where the job asks for none.

    `artifact` is the folder to fill.
    """
    recovery = claim.recipe.recovery
    if recovery is None:
        return None
    params = [param for _, param, _ in stage_texts(recovery)] or ["recovery.dataset"]
    teacher = _teacher(recovery, claim, inputs, spec)

    def text(reference: TextReference, param: str) -> TextSource:
        is_there = spec.calibration is not None and reference == claim.calibration
        return spec.calibration if is_there and spec.calibration else inputs.text(reference, spec.model, param)

    return RecoverSpec(
        recipe=claim.recipe,
        model=spec.artifact,
        artifact=artifact,
        teacher=teacher,
        dense=spec.model if get_method(claim.recipe.method).prunes else teacher,
        texts=[text(reference, param) for reference, param in zip(claim.recovery, params, strict=True)],
        evaluation=spec.evaluation,
        work=spec.work,
        previous=spec.previous,
        device=spec.device,
        threads=spec.threads,
        activation_budget_bytes=spec.activation_budget_bytes,
    )


def _teacher(recovery: Recovery, claim: Claim, inputs: JobInputs, spec: PruneSpec) -> ModelSource | None:
    """Return whom a recovery that learns from a model learns from: one that was named, else the job's own, dense."""
    if not RECOVERIES[recovery.method].learns_from_model:
        return None
    return spec.model if claim.teacher is None else inputs.model(claim.teacher)


def add_recovery(metrics: Metrics, report: Report, recovered: RecoveryOutput) -> None:
    """Make metrics and report those of the recovered model; the pruned one's perplexity stays as `before_recovery`."""
    for name, after in recovered.perplexity.items():
        figures = metrics.perplexity[name]
        figures.before_recovery, figures.pruned = figures.pruned, after
        figures.ratio = after / figures.dense if after is not None and figures.dense else None
    rows: list[dict[str, Any]] = report.layers
    if recovered.zeros and "zeros" in rows[0]:  # else groups are gone, and nothing was to stay zero
        for row in rows:
            row["zeros"] = recovered.zeros[row["name"]][1]
            row["sparsity"] = row["zeros"] / (row["out_features"] * row["in_features"])
        assert metrics.parameters is not None and metrics.parameters.dense is not None
        zeros, parameters = sum(row["zeros"] for row in rows), metrics.parameters.dense
        prunable = sum(row["out_features"] * row["in_features"] for row in rows)
        metrics.sparsity = Sparsity(prunable=zeros / prunable, model=zeros / parameters)
        metrics.parameters = Parameters(dense=parameters, nonzero=parameters - zeros)
    report.recovery = recovered.recovery
    if recovered.peak_memory is not None:
        metrics.peak_memory_bytes = max(metrics.peak_memory_bytes or 0, recovered.peak_memory.of_model)
        report.recovery.peak_memory = recovered.peak_memory
    report.note("Reconstruction errors are those of the layers as pruned, before recovery.")
