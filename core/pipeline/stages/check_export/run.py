"""Check that a form can be added to the result of a job."""

from core.engine.exporters.implementations import added_exporter
from core.pipeline.messages import TaskOutput
from core.pipeline.stages.check_export.spec import CheckExportSpec
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.inputs import open_place


def run(spec: CheckExportSpec, context: StageContext) -> TaskOutput:
    """Check that this worker can add a form to the pruned model; raises the error with the reason."""
    added_exporter(spec.form).require_possible(open_place(spec.model))
    return TaskOutput()
