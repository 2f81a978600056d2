"""Stages of forms that are added to an artifact: whether they can be, before anything is pruned, and their files."""

from core.pipeline.messages import AddExportSpec, CheckExportSpec, JobSpec
from core.pipeline.results import AddedExportOutput, TaskOutput
from worker.supervisor.runner_tasks import keep_peak
from worker.supervisor.stages.stage import JobStage, RunningJob


class CheckExports(JobStage):
    """Look, in seconds, at what would else be refused after hours: this worker's runtimes and the model's files."""

    def applies(self, spec: JobSpec) -> bool:
        return bool(spec.recipe.output.exports)

    def share(self, spec: JobSpec) -> tuple[float, float]:
        return 0.0, 0.0

    def run(self, job: RunningJob) -> None:
        for each in job.spec.recipe.output.exports:
            job.tasks.run(CheckExportSpec(model=job.spec.model.place, form=each.format), TaskOutput)


class AddExports(JobStage):
    """Files of the forms that were asked for, beside the artifact's own."""

    shown_as = "store"

    def applies(self, spec: JobSpec) -> bool:
        return bool(spec.recipe.output.exports)

    def share(self, spec: JobSpec) -> tuple[float, float]:
        return 0.98, 0.98

    def run(self, job: RunningJob) -> None:
        spec, report = job.language, job.report
        for each in spec.recipe.output.exports:
            output = job.tasks.run(
                AddExportSpec(
                    artifact=spec.artifact,
                    form=each.format,
                    types=each.types,
                    texts=[*spec.evaluation, *([] if spec.calibration is None else [spec.calibration])],
                    name=spec.model.name,
                    device=spec.device,
                    threads=spec.threads,
                ),
                AddedExportOutput,
            )
            job.metrics.exports = [*job.metrics.exports, *output.files]
            report.versions = {**report.versions, each.format: output.runtime}
            report.note(*output.notes)
            keep_peak(report, "add_export", output)
