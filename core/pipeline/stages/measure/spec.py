"""Latency of the dense and the pruned model, timed alternately in one process, which then continues the prompts."""

from typing import Literal

from pydantic import Field

from core.pipeline.messages import DeviceSpec, JobSpec, ModelPlace, Spec, TaskOutput
from core.pipeline.stages.stage import JobStage, RunningJob
from secateur_wire.metrics import Latency
from secateur_wire.reports import Generation


class MeasureSpec(DeviceSpec, Spec):
    """Spec of the latency measurement, which times the dense and the pruned model alternately in one process.

    Language models are timed on a sequence of tokens, image classifiers on images [channels, height, width]. Language
    models, which are loaded by then, also continue `prompts` by `prompt_tokens` new tokens each.
    """

    task: Literal["measure"] = "measure"
    dense: ModelPlace
    pruned: ModelPlace
    sequence_length: int | None = None
    image_shape: tuple[int, int, int] | None = None
    prompts: list[str] = Field(default_factory=list)
    prompt_tokens: int = 0


class LatencyOutput(TaskOutput):
    """Timings of the dense and the pruned model, and the texts that they wrote after the prompts."""

    latency: Latency
    generations: list[Generation] = Field(default_factory=list)


class MeasureLatency(JobStage):
    """Stage that times both models alternately; if they do not fit in memory together, a note says so instead."""

    rank = 70
    shown_as = "evaluate"
    part = 0.80, 0.92

    def applies(self, spec: JobSpec) -> bool:
        return not spec.recipe.measures

    def supervise(self, job: RunningJob) -> None:
        images, evaluation = job.report.images, job.spec.recipe.evaluation
        image_shape = None
        if images is not None:
            channels, height, width = images.shape
            image_shape = channels, height, width
        spec = MeasureSpec(
            dense=job.spec.model.place,
            pruned=job.spec.artifact_place,
            sequence_length=job.spec.recipe.timed_length if image_shape is None else None,
            image_shape=image_shape,
            prompts=evaluation.prompts,
            prompt_tokens=evaluation.prompt_tokens,
            device=job.spec.device,
            threads=job.spec.threads,
        )
        target = job.spec.recipe.target
        is_needed = target is not None and target.is_time and target.engine is None
        otherwise = None if is_needed else "Latency was not measured"
        output = job.run_optional(spec, LatencyOutput, otherwise=otherwise)
        job.metrics.latency = None if output is None else output.latency
        if output is not None and output.generations:
            job.report.generations = output.generations
