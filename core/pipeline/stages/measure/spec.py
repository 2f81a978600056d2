"""Latency of the dense and the pruned model, timed alternately in one process."""

from typing import Literal

from core.pipeline.messages import DeviceSpec, JobSpec, ModelPlace, Spec, TaskOutput
from core.pipeline.stages.stage import JobStage, RunningJob
from secateur_wire.metrics import Latency


class MeasureSpec(DeviceSpec, Spec):
    """Spec of the latency measurement, which times the dense and the pruned model alternately in one process.

    Language models are timed on a sequence of tokens, image classifiers on images [channels, height, width].
    """

    task: Literal["measure"] = "measure"
    dense: ModelPlace
    pruned: ModelPlace
    sequence_length: int | None = None
    image_shape: tuple[int, int, int] | None = None


class LatencyOutput(TaskOutput):
    """Timings of the dense and the pruned model."""

    latency: Latency


class MeasureLatency(JobStage):
    """Stage that times both models alternately; if they do not fit in memory together, a note says so instead."""

    rank = 70
    shown_as = "evaluate"
    part = 0.80, 0.92

    def applies(self, spec: JobSpec) -> bool:
        return not spec.recipe.measures

    def supervise(self, job: RunningJob) -> None:
        images = job.report.images
        image_shape = None
        if images is not None:
            channels, height, width = images.shape
            image_shape = channels, height, width
        spec = MeasureSpec(
            dense=job.spec.model.place,
            pruned=job.spec.artifact_place,
            sequence_length=job.spec.recipe.timed_length if image_shape is None else None,
            image_shape=image_shape,
            device=job.spec.device,
            threads=job.spec.threads,
        )
        otherwise = None if job.search is not None else "Latency was not measured"
        output = job.run_optional(spec, LatencyOutput, otherwise=otherwise)
        job.metrics.latency = None if output is None else output.latency
