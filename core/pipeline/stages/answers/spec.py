"""Stage in which the dense and the pruned model answer the same questions, and their answers are compared."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from core.engine.datasets.chat.conversations import Frame
from core.pipeline.messages import DeviceSpec, JobSpec, LanguageSpec, ModelSource, Spec, TaskOutput, TextSource
from core.pipeline.stages.stage import JobStage, RunningJob
from secateur_wire.answers import AnswerFigures, ComparedAnswer

_NOT_MEASURED = "Answers were not compared"


class AnswersSpec(DeviceSpec, Spec):
    """Spec of comparing the answers of the model `dense` and the artifact `pruned` to the questions of `question_sets`.

    The other fields are those of `LanguageSpec` and of the job's `evaluation.answers`. Answered batches are saved in
    `work`, and an attempt goes on after the last one that it finds there or in a folder of `previous`.
    """

    saves_progress: ClassVar[bool] = True
    task: Literal["answers"] = "answers"
    dense: ModelSource
    pruned: ModelSource
    question_sets: list[TextSource]
    frame: Frame | None
    samples: int | None
    max_new_tokens: int
    check: str | None
    work: Path
    previous: list[Path] = Field(default_factory=list)


class AnswersOutput(TaskOutput):
    """Figures of the answers, and the first of them to read, by the name of the set."""

    figures: dict[str, AnswerFigures]
    answers: dict[str, list[ComparedAnswer]]


class CompareAnswers(JobStage):
    """Stage in which both models answer the job's questions; a note says so if a model does not fit in memory."""

    rank = 85
    shown_as = "evaluate"
    part = 0.93, 0.94

    def applies(self, spec: JobSpec) -> bool:
        is_pruned = isinstance(spec, LanguageSpec) and not spec.recipe.measures
        return is_pruned and spec.recipe.evaluation.answers is not None

    def supervise(self, job: RunningJob) -> None:
        spec, answers = job.language, job.spec.recipe.evaluation.answers
        assert answers is not None
        message = AnswersSpec(
            dense=spec.model,
            pruned=ModelSource(**spec.artifact_place.model_dump(), name=spec.model.name, revision=""),
            question_sets=spec.question_sets,
            frame=spec.frame,
            samples=answers.samples,
            max_new_tokens=answers.max_new_tokens,
            check=answers.check,
            work=spec.work,
            previous=spec.previous,
            device=spec.device,
            threads=spec.threads,
        )
        output = job.run_optional(message, AnswersOutput, otherwise=_NOT_MEASURED)
        if output is not None:
            calibrated = spec.recipe.calibration and spec.recipe.calibration.dataset
            if calibrated in output.figures:
                job.report.note(f"The questions of {calibrated} are from the text that was calibrated on, too.")
            job.metrics.answers = output.figures
            job.report.answers = output.answers
            job.report.texts = {
                **(job.report.texts or {}),
                "answers": {each.name: {"sha256": each.sha256, **each.origin} for each in spec.question_sets},
            }
