"""Texts that models write after the same prompts, for people to read."""

from typing import Literal

from core.pipeline.messages import DeviceSpec, JobSpec, LanguageSpec, ModelPlace, Spec, TaskOutput
from core.pipeline.stages.stage import JobStage, RunningJob
from secateur_wire.reports import Generation


class GenerateSpec(DeviceSpec, Spec):
    """Spec of continuing prompts by `tokens` new tokens, greedily, with each of `models`."""

    task: Literal["generate"] = "generate"
    models: dict[str, ModelPlace]
    prompts: list[str]
    tokens: int


class GenerationOutput(TaskOutput):
    """Texts that models wrote after the same prompts."""

    generations: list[Generation]


class GenerateTexts(JobStage):
    """Stage in which the dense and the pruned model continue the job's prompts, for people to read.

    The process that timed them has done so already if both fit in memory; otherwise they are loaded in turn here.
    """

    rank = 80
    shown_as = "evaluate"
    part = 0.92, 0.93

    def applies(self, spec: JobSpec) -> bool:
        is_pruned = isinstance(spec, LanguageSpec) and not spec.recipe.measures
        return is_pruned and bool(spec.recipe.evaluation.prompts)

    def supervise(self, job: RunningJob) -> None:
        evaluation, report = job.spec.recipe.evaluation, job.report
        if report.generations:
            return
        spec = GenerateSpec(
            models={"dense": job.spec.model.place, "pruned": job.spec.artifact_place},
            prompts=evaluation.prompts,
            tokens=evaluation.prompt_tokens,
            device=job.spec.device,
            threads=job.spec.threads,
        )
        output = job.run_optional(spec, GenerationOutput, otherwise="Nothing was generated")
        if output is not None:
            report.generations = output.generations
        else:
            report.generations = [Generation(prompt=prompt, dense=None, pruned=None) for prompt in evaluation.prompts]
