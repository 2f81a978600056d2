"""Export of the artifact in the requested form, if it is not the form that the artifact already has."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from core.engine.exporters.registry import OFFERED
from core.pipeline.messages import JobSpec, Spec, TaskOutput
from core.pipeline.reports.report import Exported
from core.pipeline.stages.stage import JobStage, RunningJob
from secateur_wire.base import JsonObject
from secateur_wire.metrics import Sizes


class ExportSpec(Spec):
    """Spec of writing another form of a verified artifact; `section` is what the report already says of the form."""

    task: Literal["export"] = "export"
    artifact: Path
    form: str
    section: JsonObject = Field(default_factory=dict)


class ExportOutput(TaskOutput):
    """Another form of the artifact, as the report shows it."""

    exported: Exported


class ExportWeights(JobStage):
    """Stage that writes the requested form of the artifact, if the artifact does not have it already."""

    rank = 130
    shown_as = "store"
    part = 0.985, 0.99

    def applies(self, spec: JobSpec) -> bool:
        return OFFERED[spec.recipe.output.format].written == "after"

    def supervise(self, job: RunningJob) -> None:
        form = job.spec.recipe.output.format
        section = job.report.exported(form)
        known = {} if section is None else section.document()
        output = job.tasks.run(ExportSpec(artifact=job.spec.artifact, form=form, section=known), ExportOutput)
        job.report.add_export(form, known | output.exported.document())
        sizes = job.metrics.bytes or Sizes()
        setattr(sizes, form, output.exported.bytes)
        job.metrics.bytes = sizes
