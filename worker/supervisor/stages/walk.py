"""Order of an attempt's stages."""

from worker.supervisor.stages.artifact import ExportWeights, MeasureLatency, VerifyArtifact
from worker.supervisor.stages.classifier import PruneClassifier
from worker.supervisor.stages.exports import AddExports, CheckExports, TimeExports
from worker.supervisor.stages.language import GenerateTexts, MeasureSensitivity, PruneModel, SearchSparsity
from worker.supervisor.stages.recover import RecoverModel
from worker.supervisor.stages.stage import JobStage
from worker.supervisor.stages.task_accuracy import AnswerTasks

STAGES: tuple[JobStage, ...] = (
    CheckExports(),
    SearchSparsity(),
    PruneModel(),
    RecoverModel(),
    MeasureSensitivity(),
    PruneClassifier(),
    MeasureLatency(),
    GenerateTexts(),
    AnswerTasks(),
    VerifyArtifact(),
    AddExports(),
    TimeExports(),
    ExportWeights(),
)
"""All stages: a job goes through those that apply to it."""
