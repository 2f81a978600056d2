"""Descriptions of models: what is known of one from its config and the headers of its weights.

The architecture of a model that is not declared may be discovered: it follows from the same, but the discovery needs a
library that is not loaded here. Config and headers are kept, so that the discovery can run at any time, and again for
another version of the library. They are kept packed: only who opens the model, or describes it, unpacks them.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias, TypeVar

from pydantic import BaseModel, Field, TypeAdapter

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.declared import LANGUAGE_ARCHITECTURES
from core.engine.architectures.structure import LinearShape, ModelStructure, VocabularyTable
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES, TensorEntry, dtype_bytes
from secateur_wire.errors import UnsupportedArchitecture, UnusableModel
from secateur_wire.job_body import Layout, StoredDtype
from secateur_wire.models import ImageShape

SHAPES_KEY = "secateur_shapes"
"""Key in config.json for the groups of grouped convolutions, by module, once filters or channels were removed.

All other shapes follow from the tensors.
"""
CLASSIFICATION: Final = "image-classification"
"""Task of image classifiers."""
USUAL_SIDE = 224
"""Height and width of images in pixels where neither the model nor its preprocessing gives them."""
UNDISCOVERED: Final = "undiscovered"
"""Task of a model whose architecture is not known yet."""
MOST_DESCRIPTION_BYTES: Final = 2 * 2**20
"""Largest description in bytes of JSON. The largest known models, of 214,000 tensors, take less than half."""
_MOST_CONTENT_BYTES: Final = 2**27
Tensors: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape of each tensor, by the file's key."""
DISCOVERY_VERSION = 5
"""Version of the discovery. It rises when the same model would get another architecture than before."""
architectures: TypeAdapter[Architecture] = TypeAdapter(Architecture)


@dataclass(frozen=True)
class ModelTask:
    """Facts of all models of a task.

    `models` is their name in the plural. Their loss is a mean over many of `example`, reported beside `quality`. Jobs
    measure them on `texts`. With `has_blocks` several linear layers lie in each decoder block. `inapplicable` has the
    fields of a request that do not apply to such models, each with the error message.
    """

    models: str
    example: str
    quality: Literal["perplexity", "accuracy"]
    texts: str
    has_blocks: bool
    inapplicable: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_perplexity(self) -> bool:
        return self.quality == "perplexity"

    @property
    def is_traced(self) -> bool:
        """Return whether a worker traces such a model once it is registered, since no block tells its layers' order."""
        return not self.has_blocks


MODEL_TASKS: Final[Mapping[str, ModelTask]] = {
    "language-model": ModelTask(
        models="language models",
        example="a token",
        quality="perplexity",
        texts="a text",
        has_blocks=True,
        inapplicable={
            "parameters.mode": "parameters.mode: 'exact' is for image classifiers, whose derivatives of single "
            "images it takes: use 'layer_wise'",
        },
    ),
    "image-classification": ModelTask(
        models="image classifiers",
        example="an image",
        quality="accuracy",
        texts="images",
        has_blocks=False,
        inapplicable={
            "output.layout": "output.layout belongs to language models, an image classifier's filters go layer by "
            "layer: leave it out",
            "target": "target is for language models: say as sparsity how much of an image classifier is to go",
            "parameters.include_lm_head": "parameters.include_lm_head: an image classifier's last layer is prunable "
            "like any other: leave it out",
            "parameters.compensation": "parameters.compensation: fits the linear layers of language models: leave it "
            "out for an image classifier",
        },
    ),
}
"""The facts of each task, by its name in descriptions."""


class _Facts(BaseModel):
    """Facts of any model; `bytes` is the size of its weights and `dtype` their dtype."""

    task: str
    family: str
    architecture: str
    parameters: int
    prunable_parameters: int
    bytes: int
    dtype: str
    layers: int


class _Described(_Facts):
    """Facts of a model whose prunable layers are known, with the answers for a model that has nothing special."""

    linears: list[LinearShape]

    @property
    def model_task(self) -> ModelTask:
        return MODEL_TASKS[self.task]

    @property
    def language_model(self) -> "ModelDescription":
        """Return the description itself, typed as a language model's; raises UnsupportedArchitecture."""
        if isinstance(self, ModelDescription):
            return self
        raise UnsupportedArchitecture(f"{self.architecture} is not a language model", param="model")

    @property
    def classifier(self) -> "ClassifierDescription":
        """Return the description itself, typed as a classifier's; raises UnsupportedArchitecture."""
        if isinstance(self, ClassifierDescription):
            return self
        raise UnsupportedArchitecture(f"{self.architecture} is not an image classifier", param="model")

    @property
    def has_experts(self) -> bool:
        return False

    def refusal(self, offer: str) -> str | None:
        """Return the reason why the architecture does not support an offer; None where it does."""
        return None

    def tables_in(self, dtype: str) -> dict[str, list[VocabularyTable]]:
        """Return the field `vocabulary` with all parameters in a dtype; empty where there is none."""
        return {}


class ModelDescription(_Described):
    """Facts of a language model, read from its folder.

    `parameters` counts tied weights once. `bytes` and `dtype` are those of the dequantised weights where they are
    quantised. `structure` is None where an earlier version made the description. `layout` is 'per_layer' where
    config.json describes each layer. `discovered` is the architecture where it is not declared.
    `other_module_parameters` counts the parameters of modules outside the language model, which text does not run
    through. `vocabulary` are the tensors with an entry for each token, a tied head left out; None where an earlier
    version made the description.
    """

    task: Literal["language-model"] = "language-model"
    hidden_size: int
    vocabulary_size: int
    context_length: int
    tied_embeddings: bool
    structure: ModelStructure | None = None
    layout: Layout = "uniform"
    other_module_parameters: int = Field(default=0, exclude_if=lambda parameters: not parameters)
    vocabulary: list[VocabularyTable] | None = None
    discovered: Architecture | None = Field(default=None, exclude_if=lambda discovered: discovered is None)

    @property
    def outer_bytes(self) -> int:
        """Return the stored size of the weights outside all blocks: embeddings, final norm and head."""
        outer = self.parameters - self.prunable_parameters - self.other_module_parameters
        return max(outer, 0) * WEIGHT_BYTES[self.dtype]

    @property
    def known_as(self) -> Architecture:
        """Return the architecture: the discovered one, else the declared one."""
        return self.discovered or LANGUAGE_ARCHITECTURES[self.architecture]

    @property
    def has_experts(self) -> bool:
        return self.known_as.experts is not None

    @property
    def named_linears(self) -> str:
        """Return the names of one block's layers for an error message."""
        return f"layer 0 has {', '.join(each.name for each in self.linears if each.layer == 0)}"

    def refusal(self, offer: str) -> str | None:
        return self.known_as.refused.get(offer)

    def tables_in(self, dtype: str) -> dict[str, list[VocabularyTable]]:
        return {} if self.vocabulary is None else {"vocabulary": [each.in_dtype(dtype) for each in self.vocabulary]}


def require_structure(description: ModelDescription) -> ModelStructure:
    """Return the removable groups of the model; raises UnusableModel where an earlier version made its description."""
    if description.structure is None:
        raise UnusableModel(
            "the model was registered by an older version: register it again under another name",
            param="model",
        )
    return description.structure


class ClassifierPasses(BaseModel):
    """Facts of passes over images of `image_shape` (channels, height, width), traced without weights.

    `operations` are the floating-point operations of one image's forward. `evaluation_bytes` is the peak of a forward
    without gradients, with the image. `training_bytes` is the peak of a forward and its backward, without the gradients
    of the weights. Both are for each image.
    """

    image_shape: tuple[int, int, int]
    operations: int
    evaluation_bytes: int
    training_bytes: int


class TraceQuestion(BaseModel):
    """Input of a trace: a model's config, its tensors, and the shape of an image: channels, height, width."""

    config: dict[str, Any]
    tensors: Tensors
    image_shape: tuple[int, int, int]


class TraceAnswer(BaseModel):
    """Output of a trace: the facts, or the reason why there are none."""

    passes: ClassifierPasses | None = None
    error: str | None = None


class ClassifierDescription(_Described):
    """Facts of an image classifier, read from its folder.

    `linears` are its convolutions and linear layers, each as the matrix [outputs, kernel x inputs] that is pruned;
    their `layer` is the index in the order of names. `reshaped` is True if filters or channels were removed;
    `from_pretrained` alone cannot open such a model, and config.json has a key of this service. `passes` are the memory
    and operations of its passes over images, once it was traced.
    """

    task: Literal["image-classification"] = CLASSIFICATION
    classes: int
    labels: list[str]
    image: ImageShape
    reshaped: bool = False
    passes: ClassifierPasses | None = Field(default=None, exclude_if=lambda passes: passes is None)
    discovered: ClassVar[None] = None
    """Architectures of classifiers are always declared."""
    layout: ClassVar[Literal["uniform"]] = "uniform"

    @property
    def named_linears(self) -> str:
        """Return the names of its layers for an error message."""
        return f"the model has {', '.join(each.name for each in self.linears[:20])}"


Description: TypeAlias = ModelDescription | ClassifierDescription
DescriptionType = TypeVar("DescriptionType", bound=_Described)
AnyDescription = Annotated[Description, Field(discriminator="task")]
descriptions: TypeAdapter[Description] = TypeAdapter(AnyDescription)


def stored_as(description: DescriptionType, dtype: StoredDtype) -> DescriptionType:
    """Return the description of a model whose wider weights are stored in the dtype of `output.dtype`."""
    return description if dtype == "keep" else in_dtype(description, dtype)


def in_dtype(description: DescriptionType, dtype: str) -> DescriptionType:
    """Return the description of a model with all parameters in a dtype."""
    size = description.parameters * WEIGHT_BYTES[dtype]
    return description.model_copy(update={"dtype": dtype, "bytes": size, **description.tables_in(dtype)})


def is_narrowed(description: Description, dtype: StoredDtype) -> bool:
    """Return True if most weights of a model are cast where its artifact is stored in that dtype."""
    return dtype not in ("keep", description.dtype)


class UndiscoveredFacts(_Facts):
    """Facts of a language model before its architecture is discovered.

    `prunable_parameters` is 0, because it is unknown; so is `layers` if the config has no usual name for it. `digest`
    is that of config and headers, by which a discovery is found.
    """

    task: Literal["undiscovered"] = UNDISCOVERED
    prunable_parameters: int = 0
    layers: int = 0
    digest: str


class UndiscoveredModel(UndiscoveredFacts):
    """Facts, and config and headers packed as `content`: compressed JSON in base64.

    `tensors` have the dtype and shape by the file's key. They and `config` describe the dequantised model. Both raise
    ValueError for content that is not theirs.
    """

    content: str

    @classmethod
    def of(cls, config: Mapping[str, Any], tensors: Tensors, **facts: Any) -> Self:
        """Return the model of a config and tensors, with its other facts."""
        packed = zlib.compress(json.dumps([config, tensors], separators=(",", ":")).encode())
        digest = content_digest(config, tensors)
        return cls(digest=digest, content=base64.b64encode(packed).decode(), **facts)

    @property
    def config(self) -> dict[str, Any]:
        return self._unpacked[0]

    @property
    def tensors(self) -> Tensors:
        return self._unpacked[1]

    @cached_property
    def _unpacked(self) -> tuple[dict[str, Any], Tensors]:
        unpacking = zlib.decompressobj()
        try:
            text = unpacking.decompress(base64.b64decode(self.content), _MOST_CONTENT_BYTES)
        except zlib.error as error:
            raise ValueError(f"not compressed: {error}") from error
        return _contents.validate_json(text)

    def entries(self) -> dict[str, TensorEntry]:
        """Return the tensors as entries without a file."""
        return {
            name: TensorEntry(name, dtype, shape, Path(), 0, dtype_bytes(dtype, shape))
            for name, (dtype, shape) in self.tensors.items()
        }


_contents: TypeAdapter[tuple[dict[str, Any], Tensors]] = TypeAdapter(tuple[dict[str, Any], Tensors])
Source: TypeAlias = ModelDescription | ClassifierDescription | UndiscoveredModel
sources: TypeAdapter[Source] = TypeAdapter(Annotated[Source, Field(discriminator="task")])


def stored_description(source: Source) -> dict[str, Any]:
    """Return a description as JSON to store; raises UnusableModel where it is larger than `MOST_DESCRIPTION_BYTES`."""
    size = len(source.model_dump_json())
    if size > MOST_DESCRIPTION_BYTES:
        raise UnusableModel(
            f"config and headers of the model take {size} bytes to describe; a model may take "
            f"{MOST_DESCRIPTION_BYTES}, more than twice what the largest known ones do",
            param="model",
        )
    return source.model_dump(mode="json")


def content_digest(config: Mapping[str, Any], tensors: Tensors) -> str:
    """Return the SHA-256 of a model's config, and of the names, dtypes and shapes of its tensors."""
    return _digest([config, sorted((name, dtype, list(shape)) for name, (dtype, shape) in tensors.items())])


def discovery_key(digest: str, transformers_version: str) -> str:
    """Return the SHA-256 of a discovery's inputs: the `content_digest` of a model, and the versions."""
    return _digest([digest, transformers_version, DISCOVERY_VERSION])


def _digest(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
