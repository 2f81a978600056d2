"""Specs of the runner's tasks: the supervisor writes one, as JSON, on a runner's stdin."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from core.engine.architectures.classifier_architecture import NetworkName
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.dense_figures import KnownDenseFigures


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPlace(_Spec):
    """A model folder on this machine. `own_artifact`: this service wrote it, and its content was found unchanged."""

    path: Path
    own_artifact: bool = False


class ModelSource(ModelPlace):
    """The same with its name; `revision` is its content hash or commit."""

    name: str
    revision: str

    @property
    def place(self) -> ModelPlace:
        return ModelPlace(path=self.path, own_artifact=self.own_artifact)


class TextSource(_Spec):
    """A text on this machine. `origin` says where it came from, for the report."""

    name: str
    path: Path
    format: str
    text_field: str = "text"
    sha256: str | None = None
    origin: dict[str, Any] = Field(default_factory=dict)


class ImageSource(_Spec):
    """Images on this machine: a Parquet file, or a folder of them.

    `origin` says where they came from, for the report.
    """

    name: str
    path: Path
    format: str
    image_field: str = "image"
    label_field: str = "label"
    sha256: str
    origin: dict[str, Any] = Field(default_factory=dict)


class JobSpec(_Spec):
    """Spec of a job's first task.

    `work` is this attempt's folder, `previous` those of earlier attempts, the newest first, whose last complete block
    is carried forward. `generated` is what the model wrote to calibrate on beside `calibration`. `artifact` is the
    folder to fill.
    """

    job: str
    attempt: int
    recipe: Recipe
    model: ModelSource
    calibration: TextSource | None
    generated: TextSource | None = None
    evaluation: list[TextSource]
    work: Path
    previous: list[Path]
    artifact: Path
    device: str | None
    threads: int | None
    activation_budget_bytes: int


class PruneSpec(JobSpec):
    """Spec of pruning a model and writing one job's artifact. `baseline`: known figures of the dense model."""

    task: Literal["prune"] = "prune"
    baseline: KnownDenseFigures | None = None

    @property
    def artifact_place(self) -> ModelPlace:
        """Return the artifact, once it is filled."""
        return ModelPlace(path=self.artifact, own_artifact=True)


class SensitivitySpec(JobSpec):
    """Spec of measuring the loss against the pruning rate of each layer, with figures and chart."""

    task: Literal["sensitivity"] = "sensitivity"


class SearchSpec(_Spec):
    """Spec of the search for the job's `target.latency_ratio`, timing shapes against the dense model.

    `work` is this attempt's folder, `previous` those of earlier attempts.
    """

    task: Literal["search"] = "search"
    recipe: Recipe
    model: ModelSource
    sequence_length: int
    work: Path
    previous: list[Path]
    device: str | None
    threads: int | None


class RecoverSpec(_Spec):
    """Spec of training a pruned model: keep its zeros, write the artifact and measure it.

    `model` is the folder to train, `artifact` the one to fill, `teacher` what distill learns from, `dense` what stages
    are measured against (none: nothing); `texts` are those of all stages in turn. `work` is this attempt's folder,
    `previous` those of earlier attempts, the newest first.
    """

    task: Literal["recover"] = "recover"
    recipe: Recipe
    model: Path
    artifact: Path
    teacher: ModelSource | None
    dense: ModelSource | None
    texts: list[TextSource]
    evaluation: list[TextSource]
    work: Path
    previous: list[Path]
    device: str | None
    threads: int | None
    activation_budget_bytes: int


class ClassifierSpec(_Spec):
    """Spec of a whole job on one image classifier: open, prune, recover, evaluate and write.

    `work` is this attempt's folder, `previous` those of earlier attempts, the newest first. `artifact` is the folder to
    fill. `baseline`: what is known of the dense model already.
    """

    task: Literal["classifier"] = "classifier"
    job: str
    attempt: int
    recipe: Recipe
    model: ModelSource
    calibration: ImageSource | None
    recovery: ImageSource | None
    evaluation: list[ImageSource]
    baseline: KnownDenseFigures | None = None
    work: Path
    previous: list[Path]
    artifact: Path
    device: str | None
    threads: int | None


class MeasureSpec(_Spec):
    """Spec of the latency measurement, which times dense and pruned alternately in one process.

    Language models are timed by a sequence of tokens, image classifiers by images [channels, height, width].
    """

    task: Literal["measure"] = "measure"
    dense: ModelPlace
    pruned: ModelPlace
    sequence_length: int | None = None
    image_shape: tuple[int, int, int] | None = None
    device: str | None
    threads: int | None


class TasksSpec(_Spec):
    """Spec of asking one model the questions of zero-shot tasks, at most `limit` of each.

    `work` is a folder for what the harness writes meanwhile.
    """

    task: Literal["tasks"] = "tasks"
    model: ModelPlace
    questions: list[TextSource]
    limit: int | None
    work: Path
    device: str | None
    threads: int | None


class VerifySpec(_Spec):
    """Spec of the reload check: open the artifact with from_pretrained in a fresh process, compare the logits.

    `modules` is the folder for the modelling file that may have to be imported.
    """

    task: Literal["verify"] = "verify"
    artifact: Path
    expected: Path
    modules: Path
    device: str | None
    threads: int | None


class ExportSpec(_Spec):
    """Spec of writing another form of a verified artifact; `section` is what the report says of the form already."""

    task: Literal["export"] = "export"
    artifact: Path
    form: str
    section: dict[str, JsonValue] = Field(default_factory=dict)


class GenerateTextSpec(_Spec):
    """Spec of text the model itself generates, enough for `samples` windows of `sequence_length` tokens."""

    task: Literal["generate_text"] = "generate_text"
    model: ModelPlace
    target: Path
    samples: int
    sequence_length: int
    seed: int
    device: str | None
    threads: int | None


class GenerateSpec(_Spec):
    """Spec of continuing prompts by `tokens` new tokens, greedily, one model after another of one tokenizer."""

    task: Literal["generate"] = "generate"
    models: dict[str, ModelPlace]
    prompts: list[str]
    tokens: int
    device: str | None
    threads: int | None


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
    SearchSpec
    | PruneSpec
    | SensitivitySpec
    | RecoverSpec
    | ClassifierSpec
    | MeasureSpec
    | TasksSpec
    | VerifySpec
    | ExportSpec
    | GenerateTextSpec
    | GenerateSpec
    | NewNetworkSpec
    | ImportGgufSpec,
    Field(discriminator="task"),
]
spec_adapter: TypeAdapter[Spec] = TypeAdapter(Spec)
