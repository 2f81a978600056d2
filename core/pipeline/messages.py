"""Messages that tell a runner what to do: one is written, as JSON, on its stdin."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.classifier_architecture import NetworkName
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.dense_figures import KnownDenseFigures
from secateur_wire.base import JsonObject


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


class _Spec(_Part):
    @property
    def saves_progress(self) -> bool:
        """Return True for a stage that saves what it has done as it goes, and stops there where it should."""
        return False


class DeviceSpec(_Spec):
    """Base of what runs a model: on which device (None: the best there is), in how many threads (None: all)."""

    device: str | None
    threads: int | None


class JobSpec(DeviceSpec):
    """Base of what a stage of a job is told.

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

    @property
    def artifact_place(self) -> ModelPlace:
        """Return the artifact, once it is filled."""
        return self.written(self.artifact)

    def written(self, folder: Path) -> ModelPlace:
        """Return a folder that this attempt has written: whatever was cut, the architecture is the source's."""
        return ModelPlace(path=folder, own_artifact=True, discovered=self.model.discovered)


class LanguageSpec(JobSpec):
    """Spec of a stage of a job on a language model.

    `search` times shapes for the job's `target.latency_ratio`; `prune` writes the pruned model and measures it;
    `recover` trains that, keeping its zeros, writes the artifact and measures it; `sensitivity` prunes each layer alone
    and writes figures and a chart. `generated` is what the model wrote to calibrate on beside `calibration`;
    `recovery` are the texts of all stages of training in turn, `teacher` is what distill learns from, `own_text` what
    that wrote to train on. `removed_layers` are those that `prune` has removed, by their numbers in the source.
    """

    task: Literal["search", "prune", "recover", "sensitivity"]
    calibration: TextSource | None
    generated: TextSource | None = None
    evaluation: list[TextSource]
    recovery: list[TextSource] = Field(default_factory=list)
    teacher: ModelSource | None = None
    own_text: TextSource | None = None
    removed_layers: list[int] = Field(default_factory=list)
    activation_budget_bytes: int

    @property
    def saves_progress(self) -> bool:
        return self.task != "search"

    @property
    def pruned(self) -> Path:
        """Return the folder of the pruned model, which is not yet the artifact where recovery follows."""
        return self.artifact if self.recipe.recovery is None else self.work / "pruned"


class ClassifierSpec(JobSpec):
    """Spec of a whole job on one image classifier: open, prune, recover, evaluate and write, or measure."""

    task: Literal["classifier"] = "classifier"
    calibration: ImageSource | None
    recovery: ImageSource | None
    evaluation: list[ImageSource]

    @property
    def saves_progress(self) -> bool:
        return True


class MeasureSpec(DeviceSpec):
    """Spec of the latency measurement, which times dense and pruned alternately in one process.

    Language models are timed by a sequence of tokens, image classifiers by images [channels, height, width].
    """

    task: Literal["measure"] = "measure"
    dense: ModelPlace
    pruned: ModelPlace
    sequence_length: int | None = None
    image_shape: tuple[int, int, int] | None = None


class TasksSpec(DeviceSpec):
    """Spec of asking one model the questions of zero-shot tasks, at most `limit` of each.

    `work` is a folder for what the harness writes meanwhile.
    """

    task: Literal["tasks"] = "tasks"
    model: ModelPlace
    questions: list[TextSource]
    limit: int | None
    work: Path


class GenerateSpec(DeviceSpec):
    """Spec of continuing prompts by `tokens` new tokens, greedily, one model after another of one tokenizer."""

    task: Literal["generate"] = "generate"
    models: dict[str, ModelPlace]
    prompts: list[str]
    tokens: int


class VerifySpec(DeviceSpec):
    """Spec of the reload check: open the artifact with from_pretrained in a fresh process, compare the logits.

    `modules` is the folder for the modelling file that may have to be imported, `offload` that for what is written
    where the model does not fit `memory_bytes` of main memory, or the device.
    """

    task: Literal["verify"] = "verify"
    artifact: ModelPlace
    expected: Path
    modules: Path
    offload: Path
    memory_bytes: int | None = None


class ExportSpec(_Spec):
    """Spec of writing another form of a verified artifact; `section` is what the report says of the form already."""

    task: Literal["export"] = "export"
    artifact: Path
    form: str
    section: JsonObject = Field(default_factory=dict)


class CheckExportSpec(_Spec):
    """Spec of looking, before anything is pruned, whether a form can be added to what becomes of a model."""

    task: Literal["check_export"] = "check_export"
    model: ModelPlace
    form: str


class AddExportSpec(DeviceSpec):
    """Spec of adding a form to a verified artifact, a file of each type, which has to predict what the artifact does.

    They are compared on `texts`. `name` is what the files call the model.
    """

    task: Literal["add_export"] = "add_export"
    artifact: Path
    form: str
    types: list[str]
    texts: list[TextSource]
    name: str


class TimeExportSpec(DeviceSpec):
    """Spec of timing `files` of a form that was added, by type, against the dense model in files of these types.

    Those are written below `work`.
    """

    task: Literal["time_export"] = "time_export"
    dense: ModelPlace
    form: str
    files: dict[str, Path]
    work: Path


class GenerateTextSpec(DeviceSpec):
    """Spec of text the model itself generates, enough for `samples` windows of `sequence_length` tokens."""

    task: Literal["generate_text"] = "generate_text"
    model: ModelPlace
    target: Path
    samples: int
    sequence_length: int
    seed: int


class NewNetworkSpec(_Spec):
    """Spec of a small network of the field's history, untrained, written as a model folder."""

    task: Literal["new_network"] = "new_network"
    network: NetworkName
    classes: int
    channels: int
    image_size: int
    hidden_sizes: list[int]
    seed: int
    target: Path


class ImportGgufSpec(_Spec):
    """Spec of dequantising a GGUF file into a safetensors model folder."""

    task: Literal["import_gguf"] = "import_gguf"
    source: Path
    target: Path


Spec = Annotated[
    LanguageSpec
    | ClassifierSpec
    | MeasureSpec
    | TasksSpec
    | GenerateSpec
    | VerifySpec
    | ExportSpec
    | CheckExportSpec
    | AddExportSpec
    | TimeExportSpec
    | GenerateTextSpec
    | NewNetworkSpec
    | ImportGgufSpec,
    Field(discriminator="task"),
]
spec_adapter: TypeAdapter[Spec] = TypeAdapter(Spec)
