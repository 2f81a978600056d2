"""Speed of the files that were added to an artifact, compared with the dense model."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from core.pipeline.messages import DeviceSpec, JobSpec, ModelPlace, Spec, TaskOutput
from core.pipeline.stages.added_files import files_to_run
from core.pipeline.stages.stage import JobStage, RunningJob
from secateur_wire.metrics import ExportSpeed, FileSpeed


class TimeExportSpec(DeviceSpec, Spec):
    """Spec of timing `files` of an added form, by type, against the dense model in files of the same types.

    The files of the dense model are written below `work`. With `are_dense` the files are the dense model's, and are
    timed by themselves.
    """

    task: Literal["time_export"] = "time_export"
    dense: ModelPlace
    form: str
    files: dict[str, Path]
    work: Path
    are_dense: bool = False


class ExportSpeedsOutput(TaskOutput):
    """Speeds of files that were added, by type: against the dense model, or its own files'."""

    speeds: dict[str, ExportSpeed] = Field(default_factory=dict)
    own_speeds: dict[str, FileSpeed] = Field(default_factory=dict)


class TimeExports(JobStage):
    """Stage that times added files: against the dense model's if parts of it were removed, as zeros save no time.

    Files of an unpruned model are timed by themselves, for comparison with later jobs.
    """

    rank = 120
    shown_as = "evaluate"
    part = 0.98, 0.985

    def applies(self, spec: JobSpec) -> bool:
        return spec.recipe.times_exports

    def supervise(self, job: RunningJob) -> None:
        spec, metrics = job.language, job.metrics
        for form, files in files_to_run(job, "Tokens per second were not measured"):
            output = job.tasks.run(
                TimeExportSpec(
                    dense=spec.model.place,
                    form=form,
                    files={kind: spec.artifact / file for kind, file in files.items()},
                    work=spec.work,
                    are_dense=spec.recipe.stores_dense_model,
                    device=spec.device,
                    threads=spec.threads,
                ),
                ExportSpeedsOutput,
            )
            for file in metrics.exports:
                if file.format == form and file.type in output.speeds:
                    file.speed = output.speeds[file.type]
                if file.format == form and file.type in output.own_speeds:
                    file.own_speed = output.own_speeds[file.type]
            job.report.note(*output.notes)
            job.report.keep_peak("time_export", output.peak_memory)
