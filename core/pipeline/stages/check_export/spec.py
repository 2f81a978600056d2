"""Check of the forms that are added to an artifact: this worker's runtimes, and the model's files."""

from typing import Literal

from core.pipeline.messages import JobSpec, ModelPlace, Spec, TaskOutput
from core.pipeline.stages.stage import JobStage, RunningJob


class CheckExportSpec(Spec):
    """Spec of checking, before anything is pruned, that a form can be added to the pruned model."""

    task: Literal["check_export"] = "check_export"
    model: ModelPlace
    form: str


class CheckExports(JobStage):
    """Stage that finds early what would otherwise fail after hours: missing runtimes and unsuitable models."""

    rank = 10
    part = 0.0, 0.0

    def applies(self, spec: JobSpec) -> bool:
        return bool(spec.recipe.output.exports)

    def supervise(self, job: RunningJob) -> None:
        for each in job.spec.recipe.output.exports:
            job.tasks.run(CheckExportSpec(model=job.spec.model.place, form=each.format), TaskOutput)
