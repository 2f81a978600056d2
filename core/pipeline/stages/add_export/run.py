"""Addition of a form to a verified artifact."""

from itertools import chain

from core.engine.datasets.counted_tokens import number_of_places
from core.engine.datasets.text_files import read_documents
from core.engine.exporters.implementations import added_exporter
from core.engine.exporters.protocols import Importance
from core.engine.models.folder import ModelFolder
from core.engine.pruning.streams.mean_squares import mean_squares
from core.pipeline.stages.add_export.spec import AddedExportOutput, AddExportSpec
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.inputs import calibration_set, open_place


def run(spec: AddExportSpec, context: StageContext) -> AddedExportOutput:
    """Add a form to the artifact; raises ExportFailed or ExportMismatch."""
    folder, exporter = open_place(spec.artifact_place), added_exporter(spec.form)
    importance = None
    if spec.recipe.output.importance_matrix and exporter.reads_importance(folder, spec.types):
        importance = _importance(spec, folder, context)
    texts = [*spec.evaluation, *([] if spec.calibration is None else [spec.calibration])]
    added = exporter.export(
        folder,
        spec.types,
        chain.from_iterable(read_documents(text.path, text.format, text.text_field) for text in texts),
        name=spec.model.name,
        device=context.device,
        threads=spec.threads,
        log=context.progress.log,
        importance=importance,
    )
    return AddedExportOutput(
        files=added.files, runtime=added.runtime, notes=added.notes, peak_memory=context.peak_memory()
    )


def _importance(spec: AddExportSpec, folder: ModelFolder, context: StageContext) -> Importance:
    """Return the importance of the artifact's inputs, on the tokens that the job is calibrated on."""
    tokens_NT = calibration_set(spec, folder.tokenizer())
    assert spec.calibration is not None and tokens_NT is not None
    context.progress.log(f"measuring the importance of inputs on {spec.calibration.name}")
    squares = mean_squares(
        folder,
        tokens_NT,
        work=spec.work / "importance",
        device=context.device,
        activation_budget_bytes=spec.activation_budget_bytes,
    )
    return Importance(squares, number_of_places(tokens_NT), spec.calibration.name)
