"""Stage that removes tokens from the vocabulary; every later stage that prunes or trains takes the smaller model."""

from typing import ClassVar, Literal

from core.pipeline.messages import JobSpec, LanguageSpec, ModelSource, Spec, TaskOutput
from core.pipeline.stages.stage import JobStage, RunningJob
from secateur_wire.reports import VocabularyReport


class VocabularySpec(LanguageSpec, Spec):
    """Spec of counting tokens on texts, choosing those that stay, and writing the model that keeps them."""

    saves_progress: ClassVar[bool] = True
    task: Literal["vocabulary"] = "vocabulary"


class VocabularyOutput(TaskOutput):
    """Model that lost tokens; `sparsity` is the share that still goes of it.

    `teacher` has lost the same tokens if its hidden states are matched, and none otherwise.
    """

    reduced: ModelSource
    teacher: ModelSource | None = None
    sparsity: float | None = None
    vocabulary: VocabularyReport


class RemoveTokens(JobStage):
    """Stage that removes tokens, and gives the later stages a smaller model to prune."""

    rank = 10
    part = 0.0, 0.0

    def applies(self, spec: JobSpec) -> bool:
        return isinstance(spec, LanguageSpec) and spec.recipe.vocabulary_choice is not None

    def supervise(self, job: RunningJob) -> None:
        output = job.tasks.run(VocabularySpec.of(job.spec), VocabularyOutput)
        job.report.vocabulary = output.vocabulary
        job.report.note(*output.notes)
        job.report.keep_peak("vocabulary", output.peak_memory)
        recipe = job.spec.recipe.model_copy(update={"sparsity": output.sparsity})
        changed = {"recipe": recipe, "reduced": output.reduced, "teacher": output.teacher}
        job.spec = job.spec.model_copy(update=changed)
