"""Stages of forms that are added to an artifact: whether they can be, before anything is pruned, and their files."""

from collections.abc import Sequence

from core.engine.exporters.registry import ADDED
from core.pipeline.messages import AddExportSpec, CheckExportSpec, JobSpec, TimeExportSpec
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.results import AddedExportOutput, ExportSpeedsOutput, TaskOutput
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
            report.note(*_aligned(spec.recipe, ADDED[each.format].widths(each.types)), *output.notes)
            keep_peak(report, "add_export", output)


def _aligned(recipe: Recipe, widths: Sequence[int]) -> list[str]:
    """Return a note where channels were kept in whole blocks."""
    multiple = None if recipe.removal is None else recipe.removal.alignment(recipe.parameters)
    if multiple is None or not any(multiple % each == 0 for each in widths):
        return []
    return [f"Channels left are a multiple of {multiple} in every layer, whole blocks of the types of added files."]


class TimeExports(JobStage):
    """Speed of the added files beside the dense model's, where weights were removed: zeros take as long as others."""

    shown_as = "evaluate"

    def applies(self, spec: JobSpec) -> bool:
        return bool(spec.recipe.output.exports) and spec.recipe.shrinks

    def share(self, spec: JobSpec) -> tuple[float, float]:
        return 0.98, 0.98

    def run(self, job: RunningJob) -> None:
        spec, metrics = job.language, job.metrics
        dense = metrics.parameters.dense if metrics.parameters is not None else None
        for each in spec.recipe.output.exports:
            most = ADDED[each.format].most_timed_parameters
            if dense is None or dense > most:
                job.report.note(
                    "Tokens per second were not measured, as models of more than "
                    f"{most / 1e9:g} billion parameters would take long."
                )
                continue
            files = {file.type: spec.artifact / file.file for file in metrics.exports if file.format == each.format}
            output = job.tasks.run(
                TimeExportSpec(
                    dense=spec.model.place,
                    form=each.format,
                    files=files,
                    work=spec.work,
                    device=spec.device,
                    threads=spec.threads,
                ),
                ExportSpeedsOutput,
            )
            for file in metrics.exports:
                if file.format == each.format and file.type in output.speeds:
                    file.speed = output.speeds[file.type]
            job.report.note(*output.notes)
            keep_peak(job.report, "time_export", output)
