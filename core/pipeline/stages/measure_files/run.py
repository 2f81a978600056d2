"""Measurement of added files on the windows of the job's evaluation texts."""

from core.engine.exporters.implementations import added_exporter
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.inputs import compared_sets, open_place
from core.pipeline.stages.measure_files.spec import FileLossesOutput, MeasureFilesSpec
from secateur_wire.errors import ExportFailed


def run(spec: MeasureFilesSpec, context: StageContext) -> FileLossesOutput:
    """Measure added files in their engine; if that fails, a note says so."""
    folder = open_place(spec.artifact_place)
    _, texts = compared_sets(spec, folder.tokenizer())
    try:
        losses = added_exporter(spec.form).measure_losses(
            folder, spec.files, texts, threads=spec.threads, log=context.progress.log
        )
    except ExportFailed as error:
        return FileLossesOutput(notes=[f"The added files were not measured on the evaluation texts: {error.message}"])
    return FileLossesOutput(losses=losses, peak_memory=context.peak_memory())
