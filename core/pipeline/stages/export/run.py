"""Export of a verified artifact in another form."""

from core.engine.exporters.implementations import folder_exporter
from core.pipeline.reports.report import Exported
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.export.spec import ExportOutput, ExportSpec


def run(spec: ExportSpec, context: StageContext) -> ExportOutput:
    """Write another form of the artifact."""
    section = folder_exporter(spec.form).export(spec.artifact, spec.section)
    return ExportOutput(exported=Exported.model_validate(section))
