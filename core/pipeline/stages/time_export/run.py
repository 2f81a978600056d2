"""Timing of the files that were added to an artifact."""

from core.engine.exporters.implementations import added_exporter
from core.pipeline.stages.run import StageContext
from core.pipeline.stages.time_export.spec import ExportSpeedsOutput, TimeExportSpec
from secateur_wire.errors import ExportFailed


def run(spec: TimeExportSpec, context: StageContext) -> ExportSpeedsOutput:
    """Time added files against the dense model; if that fails, a note says so, and the files are kept."""
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
