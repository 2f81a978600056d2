"""Stage of recovery of a language model, and what it changes in metrics and report."""

from typing import Any

from core.engine.evaluation.perplexity_ratio import ratio_stderr
from core.pipeline.messages import JobSpec, LanguageSpec
from core.pipeline.reports.report import Report, removed_layers
from core.pipeline.results import RecoveryOutput
from secateur_wire.metrics import Metrics, Parameters, Sparsity
from worker.supervisor.runner_tasks import keep_peak
from worker.supervisor.stages.stage import JobStage, RunningJob


class RecoverModel(JobStage):
    """Training of what was pruned."""

    def applies(self, spec: JobSpec) -> bool:
        return isinstance(spec, LanguageSpec) and spec.recipe.recovery is not None

    def share(self, spec: JobSpec) -> tuple[float, float]:
        return 0.40, 0.90

    def run(self, job: RunningJob) -> None:
        change = {"task": "recover", "removed_layers": removed_layers(job.report.layers)}
        output = job.tasks.run(job.language.model_copy(update=change), RecoveryOutput)
        add_recovery(job.metrics, job.report, output)
        keep_peak(job.report, "recover", output)
        job.expected = output.expected


def add_recovery(metrics: Metrics, report: Report, recovered: RecoveryOutput) -> None:
    """Make metrics and report those of the recovered model; the pruned one's perplexity stays as `before_recovery`."""
    dense_losses = {each.name: each.window_losses for each in report.dense_figures if each.kind == "perplexity"}
    for name, after in recovered.perplexity.items():
        figures = metrics.perplexity[name]
        figures.before_recovery, figures.pruned = figures.pruned, after
        figures.ratio = after / figures.dense if after is not None and figures.dense else None
        figures.ratio_stderr = ratio_stderr(dense_losses.get(name, ()), recovered.window_losses.get(name, ()))
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
