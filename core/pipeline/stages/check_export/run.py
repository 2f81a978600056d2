"""Check whether a form can be added to what becomes of a model."""

from core.engine.exporters.implementations import added_exporter
from core.pipeline.messages import TaskOutput
from core.pipeline.stages.check_export.spec import CheckExportSpec
from core.pipeline.stages.run import StageContext


def run(spec: CheckExportSpec, context: StageContext) -> TaskOutput:
    """Require that a form can be added here to what becomes of a model; raises what says why not."""
    added_exporter(spec.form).require_possible(spec.model.path, own_artifact=spec.model.own_artifact)
    return TaskOutput()
