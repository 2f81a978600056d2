"""Stages that make the artifact of a job: fewer tokens, pruning, training, quantisation, or figures in place of it."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from core.engine.cuts import removed_layers
from core.engine.datasets.window_losses import WindowLosses
from core.engine.evaluation.perplexity_ratio import bits_per_byte, bits_ratio_stderr, ratio_stderr
from core.pipeline.messages import ClassifierSpec, JobSpec, LanguageSpec, ModelSource, PruneOutput, Spec, TaskOutput
from core.pipeline.reports.dense_figures import DenseFigure
from core.pipeline.reports.report import ARTIFACT, RecoveryReport, Report
from core.pipeline.stages.stage import JobStage, RunningJob
from secateur_wire.base import Number
from secateur_wire.metrics import Metrics, Parameters, Sizes, Sparsity
from secateur_wire.reports import VocabularyReport


class VocabularySpec(LanguageSpec, Spec):
    """Spec of counting tokens on texts, choosing those that stay, and writing the model that keeps them."""

    saves_progress: ClassVar[bool] = True
    task: Literal["vocabulary"] = "vocabulary"


class VocabularyOutput(TaskOutput):
    """Model that lost tokens; `sparsity` is the share that still goes of it.

    `teacher` has lost the same tokens if its hidden states are matched, and none otherwise.
    """

    reduced: ModelSource
    teacher: ModelSource | None = None
    sparsity: float | None = None
    vocabulary: VocabularyReport


class RemoveTokens(JobStage):
    """Stage that removes tokens, and gives the later stages a smaller model to prune."""

    def is_requested(self, spec: JobSpec) -> bool:
        return spec.recipe.vocabulary_choice is not None

    def supervise(self, job: RunningJob) -> None:
        output = job.tasks.run(VocabularySpec.of(job.spec), VocabularyOutput)
        job.report.vocabulary = output.vocabulary
        job.report.note(*output.notes)
        job.report.keep_peak("vocabulary", output.peak_memory)
        recipe = job.spec.recipe.model_copy(update={"sparsity": output.sparsity})
        changed = {"recipe": recipe, "reduced": output.reduced, "teacher": output.teacher}
        job.spec = job.spec.model_copy(update=changed)


class PruneSpec(LanguageSpec, Spec):
    """Spec of writing the pruned model and measuring it."""

    saves_progress: ClassVar[bool] = True
    task: Literal["prune"] = "prune"


class PruneModel(JobStage):
    """Stage that prunes and, if no recovery follows, measures the result."""

    def supervise(self, job: RunningJob) -> None:
        job.begin_report(job.tasks.run(PruneSpec.of(job.spec), PruneOutput))


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

    def is_requested(self, spec: JobSpec) -> bool:
        return spec.recipe.recovery is not None

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


class QuantizeSpec(LanguageSpec, Spec):
    """Spec of quantising the model, writing the artifact and measuring it; `dense` are the dense model's figures."""

    saves_progress: ClassVar[bool] = True
    task: Literal["quantize"] = "quantize"
    dense: list[DenseFigure] = Field(default_factory=list)


class QuantizeModel(JobStage):
    """Stage of a pass that rounds the weights of a finished model; others are rounded while they are pruned."""

    shown_as = "evaluate"

    def is_requested(self, spec: JobSpec) -> bool:
        return spec.recipe.is_rounded_at_last

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


class SensitivitySpec(LanguageSpec, Spec):
    """Spec of pruning each layer alone, and writing figures and a chart."""

    saves_progress: ClassVar[bool] = True
    task: Literal["sensitivity"] = "sensitivity"


class MeasureSensitivity(JobStage):
    """Stage that measures each layer alone; it produces no model."""

    makes_model = False

    def supervise(self, job: RunningJob) -> None:
        job.begin_report(job.tasks.run(SensitivitySpec.of(job.spec), PruneOutput))


class PruneClassifierSpec(ClassifierSpec, Spec):
    """Spec of a whole job on one image classifier: open, prune, recover, evaluate and write, or measure."""

    libraries: ClassVar[tuple[str, ...]] = (
        "core.pipeline.stages.classifier",
        # An export to ONNX imports these; they take over a second in each process that makes one.
        "torch.onnx._internal.exporter._core",
        "torch.onnx._internal.exporter._torchlib.ops",
        "torch._functorch.partitioners",
        "onnxscript.function_libs.torch_lib.ops",
        "sympy.tensor.tensor",
    )
    saves_progress: ClassVar[bool] = True
    task: Literal["classifier"] = "classifier"


class PruneClassifier(JobStage):
    """Pruning, recovery and evaluation of a classifier, or the measurement of its sensitivity."""

    family = ClassifierSpec
    makes_model = None

    def supervise(self, job: RunningJob) -> None:
        job.begin_report(job.tasks.run(PruneClassifierSpec.of(job.spec), PruneOutput))
