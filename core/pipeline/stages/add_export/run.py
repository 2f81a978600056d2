"""Addition of a form to a verified artifact."""

from itertools import chain

from core.engine.datasets.text_files import read_documents
from core.engine.exporters.implementations import added_exporter
from core.pipeline.stages.add_export.spec import AddedExportOutput, AddExportSpec
from core.pipeline.stages.inputs import open_place
from core.pipeline.stages.run import StageContext


def run(spec: AddExportSpec, context: StageContext) -> AddedExportOutput:
    """Add a form to the artifact; raises ExportFailed or ExportMismatch."""
    added = added_exporter(spec.form).export(
        open_place(spec.artifact),
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
