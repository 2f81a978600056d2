"""Other forms of a verified artifact: in place of its weights, or added to them."""

from itertools import chain

from core.engine.datasets.text_files import read_documents
from core.engine.exporters.implementations import added_exporter, folder_exporter
from core.errors import ExportFailed
from core.pipeline.messages import AddExportSpec, CheckExportSpec, ExportSpec, TimeExportSpec
from core.pipeline.reports.report import Exported
from core.pipeline.results import AddedExportOutput, ExportOutput, ExportSpeedsOutput, TaskOutput
from core.pipeline.stages.context import StageContext


def export(spec: ExportSpec) -> ExportOutput:
    """Write another form of the artifact."""
    return ExportOutput(
        exported=Exported.model_validate(folder_exporter(spec.form).export(spec.artifact, spec.section))
    )


def check_export(spec: CheckExportSpec) -> TaskOutput:
    """Require that a form can be added here to what becomes of a model; raises what says why not."""
    added_exporter(spec.form).require_possible(spec.model.path, own_artifact=spec.model.own_artifact)
    return TaskOutput()


def add_export(spec: AddExportSpec, context: StageContext) -> AddedExportOutput:
    """Add a form to the artifact; raises ExportFailed or ExportMismatch."""
    added = added_exporter(spec.form).export(
        spec.artifact,
        spec.types,
        chain.from_iterable(read_documents(text.path, text.format, text.text_field) for text in spec.texts),
        name=spec.name,
        device=context.device,
        threads=spec.threads,
        log=context.progress.log,
    )
    return AddedExportOutput(
        files=added.files, runtime=added.runtime, notes=added.notes, peak_memory=context.peak_memory()
    )


def time_export(spec: TimeExportSpec, context: StageContext) -> ExportSpeedsOutput:
    """Time added files against the dense model; where that fails, a note says so, and the files are kept."""
    try:
        speeds = added_exporter(spec.form).measure_speeds(
            spec.dense.path,
            spec.files,
            spec.work,
            own_dense=spec.dense.own_artifact,
            threads=spec.threads,
            log=context.progress.log,
        )
    except ExportFailed as error:
        return ExportSpeedsOutput(speeds={}, notes=[f"Tokens per second were not measured: {error.message}"])
    return ExportSpeedsOutput(speeds=speeds, peak_memory=context.peak_memory())
