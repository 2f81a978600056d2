"""Stage of recovery of a language model, and its changes to metrics and report."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from core.engine.cuts import removed_layers
from core.engine.datasets.window_losses import WindowLosses
from core.engine.evaluation.bits_per_byte import bits_per_byte, bits_ratio_stderr
from core.engine.evaluation.perplexity_ratio import ratio_stderr
from core.pipeline.messages import JobSpec, LanguageSpec, Spec, TaskOutput
from core.pipeline.reports.report import ARTIFACT, RecoveryReport, Report
from core.pipeline.stages.stage import BEFORE_MEASURING, JobStage, RunningJob, end_of_training
from secateur_wire.base import Number
from secateur_wire.metrics import Metrics, Parameters, Sparsity


class RecoverSpec(LanguageSpec, Spec):
    """Spec of training the pruned model while keeping its zeros, writing the artifact and measuring it.

    `removed_layers` are the pruned layers, by their numbers in the source.
    """

    libraries: ClassVar[tuple[str, ...]] = ("core.engine.recovery.adapters",)
    saves_progress: ClassVar[bool] = True
    task: Literal["recover"] = "recover"
    removed_layers: list[int] = Field(default_factory=list)


class RecoveryOutput(TaskOutput):
    """Trained model; `perplexity` is by text, None if it is not finite.

    `window_losses` are by text too: the mean loss of each window in nats, empty if one is not finite. `zeros` are the
    zeros of each layer before and after. `expected` is the reload check's reference.
    """

    perplexity: dict[str, Number | None]
    window_losses: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    zeros: dict[str, tuple[int, int]]
    expected: Path
    recovery: RecoveryReport


class RecoverModel(JobStage):
    """Stage that trains the pruned model."""

    rank = 40
    part = 0.35, BEFORE_MEASURING

    def share(self, spec: JobSpec) -> tuple[float, float]:
        return self.part[0], end_of_training(spec)

    def applies(self, spec: JobSpec) -> bool:
        return isinstance(spec, LanguageSpec) and spec.recipe.recovery is not None

    def supervise(self, job: RunningJob) -> None:
        spec = RecoverSpec.of(job.spec, removed_layers=removed_layers(job.report.layers))
        output = job.tasks.run(spec, RecoveryOutput)
        add_recovery(job.metrics, job.report, output)
        job.report.note(*output.notes)
        job.report.keep_peak("recover", output.peak_memory)
        job.expected = output.expected


def add_recovery(metrics: Metrics, report: Report, recovered: RecoveryOutput) -> None:
    """Set metrics and report to the recovered model's; the pruned model's perplexity stays as `before_recovery`."""
    dense_losses = {each.name: each.window_losses for each in report.dense_figures if each.kind == "perplexity"}
    for name, after in recovered.perplexity.items():
        figures = metrics.perplexity[name]
        figures.before_recovery, figures.pruned = figures.pruned, after
        figures.ratio = after / figures.dense if after is not None and figures.dense else None
        losses = dense_losses.get(name, ()), recovered.window_losses.get(name, ())
        figures.ratio_stderr = ratio_stderr(*losses)
        bits = figures.bits_per_byte
        if bits is not None and bits.tokens is not None:
            stderr = bits_ratio_stderr(*losses)
            figures.bits_per_byte = bits_per_byte(figures, tokens=bits.tokens, text_bytes=bits.bytes, stderr=stderr)
    after_training = {name: WindowLosses(losses=losses) for name, losses in recovered.window_losses.items()}
    report.window_losses = {**report.window_losses, ARTIFACT: after_training}
    rows: list[dict[str, Any]] = report.layers
    if recovered.zeros and "zeros" in rows[0]:  # otherwise groups were removed, and no zeros had to stay
        before = sum(row["zeros"] for row in rows)
        for row in rows:
            row["zeros"] = recovered.zeros[row["name"]][1]
            row["sparsity"] = row["zeros"] / (row["out_features"] * row["in_features"])
        assert metrics.parameters is not None
        parameters, nonzero = metrics.parameters.dense, metrics.parameters.nonzero
        assert parameters is not None and nonzero is not None
        zeros = sum(row["zeros"] for row in rows)
        nonzero += before - zeros
        prunable = sum(row["out_features"] * row["in_features"] for row in rows)
        metrics.sparsity = Sparsity(prunable=zeros / prunable, model=(parameters - nonzero) / parameters)
        metrics.parameters = Parameters(dense=parameters, nonzero=nonzero)
    report.recovery = recovered.recovery
    if recovered.peak_memory is not None:
        metrics.peak_memory_bytes = max(metrics.peak_memory_bytes or 0, recovered.peak_memory.of_model)
        report.recovery.peak_memory = recovered.peak_memory
    report.note("Reconstruction errors are those of the layers as pruned, before recovery.")
