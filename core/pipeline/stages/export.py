"""Other forms of a verified artifact, beside its files or in their place."""

from core.engine.exporters.implementations import folder_exporter
from core.pipeline.messages import ExportSpec
from core.pipeline.reports.report import Exported
from core.pipeline.results import ExportOutput


def export(spec: ExportSpec) -> ExportOutput:
    """Write another form of the artifact."""
    return ExportOutput(
        exported=Exported.model_validate(folder_exporter(spec.form).export(spec.artifact, spec.section))
    )
