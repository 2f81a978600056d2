"""Losses of the files that were added to an artifact, on the windows of the job's evaluation texts."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from core.engine.datasets.window_losses import WindowLosses
from core.pipeline.messages import JobSpec, LanguageSpec, Spec, TaskOutput
from core.pipeline.stages.added_files import files_to_run
from core.pipeline.stages.stage import JobStage, RunningJob


class MeasureFilesSpec(LanguageSpec, Spec):
    """Spec of measuring `files` of an added form, by type, on the evaluation texts."""

    task: Literal["measure_files"] = "measure_files"
    form: str
    files: dict[str, Path]


class FileLossesOutput(TaskOutput):
    """Losses of files by type, and by evaluation set."""

    losses: dict[str, dict[str, WindowLosses]] = Field(default_factory=dict)


class MeasureFiles(JobStage):
    """Stage that measures added files as the artifact was measured, for the comparison at equal bytes."""

    rank = 115
    shown_as = "evaluate"
    part = 0.97, 0.98

    def applies(self, spec: JobSpec) -> bool:
        return bool(spec.recipe.output.exports) and bool(spec.recipe.evaluation.datasets)

    def supervise(self, job: RunningJob) -> None:
        spec = job.language
        for form, files in files_to_run(job, "The added files were not measured on the evaluation texts"):
            paths = {kind: spec.artifact / file for kind, file in files.items()}
            output = job.tasks.run(MeasureFilesSpec.of(spec, form=form, files=paths), FileLossesOutput)
            measured = {files[kind]: losses for kind, losses in output.losses.items()}
            job.report.window_losses = {**job.report.window_losses, **measured}
            job.report.note(*output.notes)
            job.report.keep_peak("measure_files", output.peak_memory)
