"""Speed of the files that were added to an artifact, compared with the dense model."""

from pathlib import Path
from typing import Literal

from core.engine.exporters.registry import ADDED
from core.pipeline.messages import DeviceSpec, JobSpec, ModelPlace, Spec, TaskOutput
from core.pipeline.stages.stage import JobStage, RunningJob
from secateur_wire.metrics import ExportSpeed


class TimeExportSpec(DeviceSpec, Spec):
    """Spec of timing `files` of an added form, by type, against the dense model in files of the same types.

    The files of the dense model are written below `work`.
    """

    task: Literal["time_export"] = "time_export"
    dense: ModelPlace
    form: str
    files: dict[str, Path]
    work: Path


class ExportSpeedsOutput(TaskOutput):
    """Speeds of files that were added, by type."""

    speeds: dict[str, ExportSpeed]


class TimeExports(JobStage):
    """Stage that times added files against the dense model if weights were removed; zeroed weights save no time."""

    rank = 120
    shown_as = "evaluate"
    part = 0.98, 0.98

    def applies(self, spec: JobSpec) -> bool:
        return bool(spec.recipe.output.exports) and spec.recipe.shrinks

    def supervise(self, job: RunningJob) -> None:
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
            job.report.keep_peak("time_export", output.peak_memory)
