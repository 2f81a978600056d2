"""Stage that quantises the model which structured pruning or training made, and its changes to the report."""

from typing import ClassVar, Literal

from pydantic import Field

from core.pipeline.messages import JobSpec, LanguageSpec, PruneOutput, Spec
from core.pipeline.reports.dense_figures import DenseFigure
from core.pipeline.stages.stage import BEFORE_MEASURING, BEFORE_QUANTISING, JobStage, RunningJob
from secateur_wire.metrics import Sizes


class QuantizeSpec(LanguageSpec, Spec):
    """Spec of quantising the model, writing the artifact and measuring it; `dense` are the dense model's figures."""

    saves_progress: ClassVar[bool] = True
    task: Literal["quantize"] = "quantize"
    dense: list[DenseFigure] = Field(default_factory=list)


class QuantizeModel(JobStage):
    """Stage of a pass that rounds the weights of a finished model; others are rounded while they are pruned."""

    rank = 45
    shown_as = "evaluate"
    part = BEFORE_QUANTISING, BEFORE_MEASURING

    def applies(self, spec: JobSpec) -> bool:
        return isinstance(spec, LanguageSpec) and spec.recipe.is_rounded_at_last

    def supervise(self, job: RunningJob) -> None:
        output = job.tasks.run(QuantizeSpec.of(job.spec, dense=job.report.dense_figures), PruneOutput)
        metrics, report, rounded = job.metrics, job.report, output.report.quantization
        assert rounded is not None and output.metrics.bytes is not None
        rounded.perplexity_before = {name: figures.pruned for name, figures in metrics.perplexity.items()}
        for name, figures in output.metrics.perplexity.items():
            before = metrics.perplexity[name]
            figures.before_recovery = before.before_recovery
            if figures.bits_per_byte is not None and before.bits_per_byte is not None:
                figures.bits_per_byte.before_recovery = before.bits_per_byte.before_recovery
        metrics.perplexity = output.metrics.perplexity
        sizes = metrics.bytes or Sizes()
        sizes.artifact = output.metrics.bytes.artifact
        metrics.bytes = sizes
        report.quantization = rounded
        report.window_losses = {**report.window_losses, **output.report.window_losses}
        report.note(*output.report.notes, rounded.words)
        report.keep_peak("quantize", output.report.peak_memory)
        job.expected = output.expected
