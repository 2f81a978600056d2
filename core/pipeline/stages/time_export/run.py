"""Timing of the files that were added to an artifact."""

from core.engine.exporters.implementations import added_exporter
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.inputs import open_place
from core.pipeline.stages.time_export.spec import ExportSpeedsOutput, TimeExportSpec
from secateur_wire.errors import ExportFailed


def run(spec: TimeExportSpec, context: StageContext) -> ExportSpeedsOutput:
    """Time added files, against the dense model unless they are its own; if that fails, a note says so."""
    try:
        exporter, dense = added_exporter(spec.form), open_place(spec.dense)
        if spec.are_dense:
            own = exporter.measure_own_speeds(
                dense,
                spec.files,
                threads=spec.threads,
                log=context.progress.log,
            )
            return ExportSpeedsOutput(own_speeds=own, peak_memory=context.peak_memory())
        speeds = exporter.measure_speeds(
            dense,
            spec.files,
            spec.work,
            threads=spec.threads,
            log=context.progress.log,
        )
    except ExportFailed as error:
        return ExportSpeedsOutput(notes=[f"Tokens per second were not measured: {error.message}"])
    return ExportSpeedsOutput(speeds=speeds, peak_memory=context.peak_memory())
