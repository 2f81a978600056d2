"""Forms that are added to an artifact, beside its own files."""

from collections.abc import Sequence
from typing import Literal

from core.engine.exporters.registry import ADDED
from core.engine.removals.widths import width_divisor
from core.pipeline.messages import JobSpec, LanguageSpec, Spec, TaskOutput
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.stages.stage import JobStage, RunningJob
from secateur_wire.metrics import ExportedFile


class AddExportSpec(LanguageSpec, Spec):
    """Spec of adding a form to a verified artifact: one file for each type, which must predict as the artifact does.

    Predictions are compared on the evaluation texts and the calibration text.
    """

    task: Literal["add_export"] = "add_export"
    form: str
    types: list[str]


class AddedExportOutput(TaskOutput):
    """Files of a form that was added to the artifact, and the runtime that ran them."""

    files: list[ExportedFile]
    runtime: str


class AddExports(JobStage):
    """Stage that adds the requested forms, beside the artifact's own files."""

    rank = 110
    shown_as = "store"
    part = 0.96, 0.97

    def applies(self, spec: JobSpec) -> bool:
        return bool(spec.recipe.output.exports)

    def supervise(self, job: RunningJob) -> None:
        spec, report = job.language, job.report
        for each in spec.recipe.output.exports:
            output = job.tasks.run(AddExportSpec.of(spec, form=each.format, types=each.types), AddedExportOutput)
            job.metrics.exports = [*job.metrics.exports, *output.files]
            report.versions = {**report.versions, each.format: output.runtime}
            report.note(*_aligned(spec.recipe, ADDED[each.format].widths(each.types)), *output.notes)
            report.keep_peak("add_export", output.peak_memory)


def _aligned(recipe: Recipe, widths: Sequence[int]) -> list[str]:
    """Return a note if channels were kept in whole blocks."""
    multiple = width_divisor(recipe.parameters)
    if multiple is None or not any(multiple % each == 0 for each in widths):
        return []
    return [f"Channels left are a multiple of {multiple} in every layer, whole blocks of the types of added files."]
