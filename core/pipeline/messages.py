"""Messages between a supervisor and a runner: base classes of the stages' specs and outputs, and their shared parts.

A spec tells a runner what to do, as JSON on its stdin. An output is what the runner sends back. The specs and outputs
of the stages are beside them (`core.pipeline.stages`).
"""

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.unit_counts import CostLimit
from core.engine.datasets.chat.conversations import Frame, Rendering
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.dense_figures import KnownDenseFigures
from core.pipeline.reports.report import PeakMemory, Report
from secateur_wire.base import JsonObject
from secateur_wire.metrics import Metrics


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPlace(_Part):
    """Model folder on this machine; `own_artifact` means that this service wrote it, and its content is unchanged.

    `discovered` is its architecture if that was discovered rather than declared.
    """

    path: Path
    own_artifact: bool = False
    discovered: Architecture | None = None


class ModelSource(ModelPlace):
    """Model folder with the model's name; `revision` is its content hash or commit."""

    name: str
    revision: str

    @property
    def place(self) -> ModelPlace:
        return ModelPlace(path=self.path, own_artifact=self.own_artifact, discovered=self.discovered)


class TextSource(_Part):
    """Text on this machine; `origin` says where it came from, for the report.

    `rendering` are the facts about conversations that a chat template has rendered; the file then has `RenderedRow`s.
    """

    name: str
    path: Path
    format: str
    text_field: str = "text"
    sha256: str | None = None
    origin: JsonObject = Field(default_factory=dict)
    rendering: Rendering | None = None


class ImageSource(_Part):
    """Images on this machine: a Parquet file, or a folder of images.

    `origin` says where they came from, for the report.
    """

    name: str
    path: Path
    format: str
    image_field: str = "image"
    label_field: str = "label"
    sha256: str
    origin: JsonObject = Field(default_factory=dict)


class Spec(_Part):
    """Base of specs; `task` is the name of the task.

    `libraries` are slow modules that only this stage needs: a worker loads them once, for its first such task.
    `saves_progress` means that the stage saves its progress, and stops after saving when it is asked to stop.
    """

    libraries: ClassVar[tuple[str, ...]] = ()
    saves_progress: ClassVar[bool] = False
    task: str


class DeviceSpec(_Part):
    """Base of specs whose task runs a model: its device (None: the best available) and threads (None: all).

    `memory_bytes` is the main memory that the worker may use; None if it is not known. The worker sets it.
    """

    device: str | None
    threads: int | None
    memory_bytes: int | None = None


class JobSpec(DeviceSpec):
    """Base of the specs of all stages of a job.

    `work` is the folder of this attempt. `previous` are the folders of earlier attempts, the newest first, which may
    hold records to resume from. `artifact` is the folder to fill. `baseline` are known figures of the dense model.
    """

    job: str
    attempt: int
    recipe: Recipe
    model: ModelSource
    baseline: KnownDenseFigures | None = None
    work: Path
    previous: list[Path]
    artifact: Path

    @classmethod
    def of(cls, job: "JobSpec", **more: Any) -> Self:
        """Return the spec of one stage: the fields that all stages of a job share, and the stage's own."""
        return cls.model_validate({**dict(job), **more})

    @property
    def artifact_place(self) -> ModelPlace:
        """Return the place of the artifact, which is complete after the stages that write it."""
        return self.place_of(self.artifact)

    def place_of(self, folder: Path) -> ModelPlace:
        """Return the place of a folder that this attempt wrote; its architecture is the source model's."""
        return ModelPlace(path=folder, own_artifact=True, discovered=self.model.discovered)


class LanguageSpec(JobSpec):
    """Base of the specs of all stages of a job on a language model.

    `calibration` is the calibration text; `generated` is text that the model wrote itself to calibrate on. `counted`
    are the texts whose tokens decide which tokens stay, and `reduced` is the model that lost the others. `recovery`
    are the texts of all training stages in turn. `teacher` is the model that distillation learns from, and `own_text`
    the text that it wrote to train on. `costs` are those of the model's parts, where they decide what goes.
    `question_sets` are those whose answers are compared, and `frame` the
    words of the model's chat template around an answer, None without a template or where they are not known.
    `questions` are the questions of zero-shot tasks.
    """

    calibration: TextSource | None
    generated: TextSource | None = None
    counted: list[TextSource] = Field(default_factory=list)
    reduced: ModelSource | None = None
    evaluation: list[TextSource]
    recovery: list[TextSource] = Field(default_factory=list)
    teacher: ModelSource | None = None
    own_text: TextSource | None = None
    costs: CostLimit | None = None
    question_sets: list[TextSource] = Field(default_factory=list)
    frame: Frame | None = None
    questions: list[TextSource] = Field(default_factory=list)
    activation_budget_bytes: int

    @property
    def source(self) -> ModelSource:
        """Return the model to prune and to learn from: the job's own, or the one that lost tokens.

        What the report says of the dense model is measured on `model`.
        """
        return self.reduced or self.model

    @property
    def pruned(self) -> Path:
        """Return the folder of the pruned model: the artifact's, unless training or a pass that quantises follows."""
        is_last = self.recipe.recovery is None and not self.recipe.is_rounded_at_last
        return self.artifact if is_last else self.work / "pruned"

    @property
    def trained(self) -> Path:
        """Return the folder of the trained model: the artifact's, unless a pass that quantises follows."""
        return self.work / "trained" if self.recipe.is_rounded_at_last else self.artifact


class ClassifierSpec(JobSpec):
    """Base of the specs of all stages of a job on an image classifier."""

    calibration: ImageSource | None
    recovery: ImageSource | None
    evaluation: list[ImageSource]


class TaskOutput(BaseModel):
    """Base of outputs: the peak memory of the stage's process, and notes for the report."""

    peak_memory: PeakMemory | None = None
    notes: list[str] = Field(default_factory=list)


class PruneOutput(TaskOutput):
    """Result of pruning or measuring a model; `expected` is the reload check's reference, None without a model."""

    metrics: Metrics
    report: Report
    expected: Path | None = None


class CountQuestion(_Part):
    """Question to a child: which tokens of a folder's tokenizer a text uses; the model has `vocabulary_size` rows."""

    folder: Path
    vocabulary_size: int
    text: TextSource


class CountedTokens(BaseModel):
    """Tokens that a text uses.

    `used` is the number of different tokens, of `tokens` in the whole text, and `least` the number that stays in any
    case. `kept` is the number that stays where all used ones do, with those that they are merged from.
    """

    used: int
    tokens: int
    least: int
    kept: int


class CountAnswer(BaseModel):
    """Answer to a question about tokens: what was counted, or the reason why no tokens can go from the tokenizer."""

    counted: CountedTokens | None = None
    refusal: str | None = None
