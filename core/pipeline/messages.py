"""Messages between a supervisor and a runner: bases of the specs and outputs of the stages, and what these share.

A spec tells a runner what to do, as JSON on its stdin; an output is what it sends back. Those of one stage are in its
folder (`core.pipeline.stages`).
"""

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.heterogeneous import Layout
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.dense_figures import KnownDenseFigures
from core.pipeline.reports.report import PeakMemory, Report
from secateur_wire.base import JsonObject
from secateur_wire.metrics import Metrics


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPlace(_Part):
    """A model folder on this machine. `own_artifact`: this service wrote it, and its content was found unchanged.

    `discovered` is its architecture where that is none of those declared.
    """

    path: Path
    own_artifact: bool = False
    discovered: Architecture | None = None


class ModelSource(ModelPlace):
    """The same with its name; `revision` is its content hash or commit."""

    name: str
    revision: str

    @property
    def place(self) -> ModelPlace:
        return ModelPlace(path=self.path, own_artifact=self.own_artifact, discovered=self.discovered)


class TextSource(_Part):
    """A text on this machine. `origin` says where it came from, for the report."""

    name: str
    path: Path
    format: str
    text_field: str = "text"
    sha256: str | None = None
    origin: JsonObject = Field(default_factory=dict)


class ImageSource(_Part):
    """Images on this machine: a Parquet file, or a folder of them.

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
    """Base of specs. `task` is the folder of the stage.

    `libraries` are modules that this stage alone needs and that are slow to load: a worker loads them once, for its
    first such task. `saves_progress`: the stage saves what it has done as it goes, and stops there where it should.
    """

    libraries: ClassVar[tuple[str, ...]] = ()
    saves_progress: ClassVar[bool] = False
    task: str


class DeviceSpec(_Part):
    """Base of what runs a model: on which device (None: the best there is), in how many threads (None: all)."""

    device: str | None
    threads: int | None


class JobSpec(DeviceSpec):
    """Base of what all stages of a job are told.

    `work` is this attempt's folder, `previous` those of earlier attempts, the newest first, which may have a record to
    resume from. `artifact` is the folder to fill. `baseline`: known figures of the dense model. `memory_bytes`: main
    memory that the worker may use; None where it is not known.
    """

    job: str
    attempt: int
    recipe: Recipe
    model: ModelSource
    baseline: KnownDenseFigures | None = None
    work: Path
    previous: list[Path]
    artifact: Path
    memory_bytes: int | None = None

    @classmethod
    def of(cls, job: "JobSpec", **more: Any) -> Self:
        """Return the spec of one stage: what all stages of a job are told, and what this one is told besides."""
        return cls.model_validate({**dict(job), **more})

    @property
    def artifact_place(self) -> ModelPlace:
        """Return the artifact, once it is filled."""
        return self.written(self.artifact)

    def written(self, folder: Path) -> ModelPlace:
        """Return a folder that this attempt has written: whatever was cut, the architecture is the source's."""
        return ModelPlace(path=folder, own_artifact=True, discovered=self.model.discovered)


class LanguageSpec(JobSpec):
    """Base of what all stages of a job on a language model are told.

    `generated` is what the model wrote to calibrate on beside `calibration`; `recovery` are the texts of all stages of
    training in turn, `teacher` is what distill learns from, `own_text` what that wrote to train on. `questions` are
    those of zero-shot tasks.
    """

    calibration: TextSource | None
    generated: TextSource | None = None
    evaluation: list[TextSource]
    recovery: list[TextSource] = Field(default_factory=list)
    teacher: ModelSource | None = None
    own_text: TextSource | None = None
    questions: list[TextSource] = Field(default_factory=list)
    activation_budget_bytes: int

    @property
    def pruned(self) -> Path:
        """Return the folder of the pruned model, which is not yet the artifact where recovery follows."""
        return self.artifact if self.recipe.recovery is None else self.work / "pruned"


class ClassifierSpec(JobSpec):
    """Base of what all stages of a job on an image classifier are told."""

    calibration: ImageSource | None
    recovery: ImageSource | None
    evaluation: list[ImageSource]


class TaskOutput(BaseModel):
    """Base of outputs: the peak memory of the stage's process, and remarks for the report."""

    peak_memory: PeakMemory | None = None
    notes: list[str] = Field(default_factory=list)


class PruneOutput(TaskOutput):
    """A model that was pruned, or measured. `expected` is what the reload check compares with, None without a model."""

    metrics: Metrics
    report: Report
    expected: Path | None = None


class TracedPass(_Part):
    """Part of a job that decides which bytes its pass holds, beside the model.

    `calibration` and `evaluations` are sequences and tokens of each, `device` is the kind of device that the pass would
    run on.
    """

    method: str
    pattern: str
    sparsity: float | None
    parameters: JsonObject
    layout: Layout
    at_least: bool
    is_timed: bool
    calibration: tuple[int, int] | None
    evaluations: tuple[tuple[int, int], ...]
    activation_budget_bytes: int
    device: str


class PassQuestion(_Part):
    """Question to a trace: what a pass holds of a model of such a config, and dtype and shape of each tensor by key."""

    config: JsonObject
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    own_artifact: bool = False
    discovered: Architecture | None = None
    traced: TracedPass


class PassAnswer(BaseModel):
    """Answer of a trace: the most bytes that a device holds, or why it has found nothing."""

    peak_bytes: int | None = None
    error: str | None = None
