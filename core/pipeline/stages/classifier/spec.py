"""Stage of a job on an image classifier; one task does it all, because the network stays in the runner's memory."""

from typing import ClassVar, Literal

from core.pipeline.messages import ClassifierSpec, JobSpec, PruneOutput, Spec
from core.pipeline.stages.stage import JobStage, RunningJob


class PruneClassifierSpec(ClassifierSpec, Spec):
    """Spec of a whole job on one image classifier: open, prune, recover, evaluate and write, or measure."""

    libraries: ClassVar[tuple[str, ...]] = (
        "core.pipeline.stages.classifier.run",
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

    rank = 60
    part = 0.0, 0.80

    def applies(self, spec: JobSpec) -> bool:
        return isinstance(spec, ClassifierSpec)

    def supervise(self, job: RunningJob) -> None:
        job.begin_report(job.tasks.run(PruneClassifierSpec.of(job.spec), PruneOutput))
