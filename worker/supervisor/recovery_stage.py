"""The supervisor's part in recovery: what the runner is told, and what its answer changes in metrics and report."""

from pathlib import Path
from typing import Any

from core.engine.options.recovery import Recovery, stage_texts
from core.methods.registry import get_method
from core.service.jobs.queue import Claim
from core.service.sources.references import TextReference
from worker.runner.specs import ModelSource, PruneSpec, RecoverSpec, TextSource
from worker.supervisor.inputs import Sources


def recover_spec(claim: Claim, sources: Sources, spec: PruneSpec, artifact: Path) -> RecoverSpec | None:
    """Return the spec of recovery, text and teacher fetched; None where the job asks for none.

    `artifact` is the folder to fill.
    """
    recovery = claim.recipe.recovery
    if recovery is None:
        return None
    params = [param for _, param, _ in stage_texts(recovery)] or ["recovery.dataset"]
    teacher = _teacher(recovery, claim, sources, spec)

    def text(reference: TextReference, param: str) -> TextSource:
        is_there = spec.calibration is not None and reference == claim.calibration
        return spec.calibration if is_there and spec.calibration else sources.text(reference, spec.model, param)

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


def _teacher(recovery: Recovery, claim: Claim, sources: Sources, spec: PruneSpec) -> ModelSource | None:
    """Return the teacher of distill: the model that was named, else the job's own before it was pruned."""
    if recovery.method != "distill":
        return None
    return spec.model if claim.teacher is None else sources.model(claim.teacher)


def add_recovery(metrics: dict[str, Any], report: dict[str, Any], recovered: dict[str, Any]) -> None:
    """Make metrics and report those of the recovered model; the pruned one's perplexity stays as `before_recovery`."""
    for name, after in recovered["perplexity"].items():
        figures = metrics["perplexity"][name]
        figures |= {"before_recovery": figures["pruned"], "pruned": after, "ratio": after / figures["dense"]}
    if recovered["zeros"] and "zeros" in report["layers"][0]:  # else groups are gone, and nothing was to stay zero
        rows = report["layers"]
        for row in rows:
            row["zeros"] = recovered["zeros"][row["name"]][1]
            row["sparsity"] = row["zeros"] / (row["out_features"] * row["in_features"])
        zeros, parameters = sum(row["zeros"] for row in rows), metrics["parameters"]["dense"]
        prunable = sum(row["out_features"] * row["in_features"] for row in rows)
        metrics["sparsity"] = {"prunable": zeros / prunable, "model": zeros / parameters}
        metrics["parameters"] = {"dense": parameters, "nonzero": parameters - zeros}
    peak = recovered["peak_memory"]
    metrics["peak_memory_bytes"] = max(metrics["peak_memory_bytes"], peak.get("device", peak["resident"]))
    report["recovery"] = recovered["recovery"] | {"peak_memory": peak}
    report.setdefault("notes", []).append("Reconstruction errors are those of the layers as pruned, before recovery.")
