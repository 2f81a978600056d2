"""Image classifiers: their architectures, and the reader of their folders, which executes nothing.

Layers have the names of the model's modules. Files of some families use older names, which `renames` translates.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, Self, TypeGuard

from pydantic import BaseModel, Field

from core.engine.architectures.layer_shape import LinearShape
from core.engine.architectures.model_task import MODEL_TASKS, ModelTask
from core.engine.checkpoints.safetensors_header import WEIGHT_DTYPES, TensorEntry
from secateur_wire.errors import CorruptSafetensors, MissingTensors, UnsupportedArchitecture, UnusableModel
from secateur_wire.models import ImageShape

SHAPES_KEY = "secateur_shapes"
"""Key in config.json for the groups of grouped convolutions, by module, once filters or channels were removed.

All other shapes follow from the tensors.
"""
CLASSIFICATION: Final = "image-classification"
"""Task of image classifiers."""
REFERENCE_TYPE = "secateur_reference"
"""`model_type` of the small networks this project defines itself (`core.engine.models.reference_networks`)."""
USUAL_SIDE = 224
"""Height and width of images in pixels where neither the model nor its preprocessing gives them."""
NetworkName = Literal["mlp", "lenet-300-100", "lenet-5", "digits-1989", "vgg"]


@dataclass(frozen=True)
class ClassifierArchitecture:
    """Facts of one architecture of image classifiers.

    `order` is its place in lists of architectures, the smallest first. `head` is the module that computes the logits.
    `renames` are pairs (pattern, replacement) from a file's keys to the model's names, in order. `prefix` is put before
    keys that lack it (hub files of timm models do).
    """

    model_type: str
    architecture: str
    title: str
    order: int
    head: str = "classifier"
    renames: tuple[tuple[str, str], ...] = ()
    prefix: str = ""

    def module_name(self, key: str) -> str:
        """Return the module's name in the model for a key of its file."""
        if self.prefix and not key.startswith(self.prefix):
            key = self.prefix + key
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


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
    """Input of a trace: a model's config, the dtype and shape of each tensor by the file's key, and the image shape."""

    config: dict[str, Any]
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    image_shape: tuple[int, int, int]


class TraceAnswer(BaseModel):
    """Output of a trace: the facts, or the reason why there are none."""

    passes: ClassifierPasses | None = None
    error: str | None = None


class ClassifierDescription(BaseModel):
    """Facts of an image classifier, read from its folder.

    `linears` are its convolutions and linear layers, each as the matrix [outputs, kernel x inputs] that is pruned;
    their `layer` is the index in the order of names. `reshaped` is True if filters or channels were removed;
    `from_pretrained` alone cannot open such a model, and config.json has a key of this service. `passes` are the memory
    and operations of its passes over images, once it was traced.
    """

    task: Literal["image-classification"] = CLASSIFICATION
    family: str
    architecture: str
    parameters: int
    prunable_parameters: int
    bytes: int
    dtype: str
    layers: int
    linears: list[LinearShape]
    classes: int
    labels: list[str]
    image: ImageShape
    reshaped: bool = False
    passes: ClassifierPasses | None = Field(default=None, exclude_if=lambda passes: passes is None)

    @property
    def model_task(self) -> ModelTask:
        return MODEL_TASKS[self.task]

    @property
    def classifier(self) -> Self:
        """Return the description itself, typed as a classifier's."""
        return self

    @property
    def language_model(self) -> NoReturn:
        raise UnsupportedArchitecture(f"{self.architecture} is not a language model", param="model")

    @property
    def discovered(self) -> None:
        """Return None: architectures of classifiers are always declared."""
        return None

    @property
    def layout(self) -> Literal["uniform"]:
        """Return 'uniform', the only layout of classifiers."""
        return "uniform"

    def tables_in(self, dtype: str) -> dict[str, object]:
        """Return no field: classifiers have no tables of tokens."""
        return {}

    @property
    def has_experts(self) -> bool:
        return False

    @property
    def named_linears(self) -> str:
        """Return the names of its layers for an error message."""
        return f"the model has {', '.join(each.name for each in self.linears[:20])}"

    def refusal(self, offer: str) -> str | None:
        """Return the reason why the architecture does not support an offer; None where it does."""
        return None


def describe_classifier(
    config: dict[str, Any], family: ClassifierArchitecture, tensors: dict[str, TensorEntry]
) -> ClassifierDescription:
    """Return the description of a classifier from its config.json and headers; raises UnusableModel kinds."""
    if config.get("model_type") != family.model_type:
        raise UnusableModel(
            f"config.json has model_type {str(config.get('model_type'))[:100]!r}, but {family.architecture} needs "
            f"{family.model_type!r}",
            param="model",
        )
    linears = [
        LinearShape(
            name=name.removesuffix(".weight"),
            layer=0,
            out_features=entry.shape[0],
            in_features=math.prod(entry.shape[1:]),
            kernel=math.prod(entry.shape[2:]),
        )
        for name, entry in sorted(tensors.items(), key=lambda pair: _natural_sort_key(pair[0]))
        if name.endswith(".weight") and len(entry.shape) in (2, 4)
    ]
    for number, linear in enumerate(linears):
        if not linear.numel:
            raise CorruptSafetensors(f"{linear.name}.weight holds nothing", param="model")
        linears[number] = linear.model_copy(update={"layer": number})
    if not linears:
        raise MissingTensors("the files have no weight of a convolution or linear layer", param="model")
    dtypes: Counter[str] = Counter()
    for entry in tensors.values():
        if entry.dtype in WEIGHT_DTYPES:
            dtypes[entry.dtype] += entry.numel
    if not dtypes:
        raise UnusableModel("weights are not stored as floats; float32, float16 or bfloat16 is needed")
    labels = _labels(config)
    head = tensors.get(f"{family.head}.weight")
    if head is not None and head.shape[0] != len(labels):
        raise UnusableModel(
            f"config.json names {len(labels)} labels, but the classifier's head {family.head} has {head.shape[0]} "
            "outputs",
            param="model",
        )
    return ClassifierDescription(
        family=family.title,
        architecture=family.architecture,
        parameters=sum(
            entry.numel
            for name, entry in tensors.items()
            if entry.dtype in WEIGHT_DTYPES and not name.endswith((".running_mean", ".running_var"))
        ),
        prunable_parameters=sum(linear.numel for linear in linears),
        bytes=sum(entry.end - entry.start for entry in tensors.values()),
        dtype=WEIGHT_DTYPES[dtypes.most_common(1)[0][0]],
        layers=len(linears),
        linears=linears,
        classes=len(labels),
        labels=labels,
        image=_image(config),
        reshaped=SHAPES_KEY in config,
    )


def _natural_sort_key(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that puts layer 10 after layer 9."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", name) if part]


def _labels(config: dict[str, Any]) -> list[str]:
    """Return the names of the classes, in order."""
    named = config.get("id2label")
    if isinstance(named, dict) and named:
        try:
            by_number = {int(number): str(label) for number, label in named.items()}
        except ValueError:
            by_number = {}
        if sorted(by_number) == list(range(len(named))):
            return [by_number[number] for number in range(len(named))]
        raise UnusableModel("config.json: the keys of id2label are not 0, 1, 2, …", param="model")
    listed = config.get("label_names")
    if isinstance(listed, list) and listed:
        return [str(label) for label in listed]
    number = next((config[key] for key in ("num_labels", "num_classes") if type(config.get(key)) is int), 2)
    if not 0 < number < 10**6:
        raise UnusableModel(f"config.json names {number} classes", param="model")
    return [f"LABEL_{each}" for each in range(number)]


def _image(config: dict[str, Any]) -> ImageShape:
    """Return the image shape from the config's own keys, or from timm's record of the training images."""
    trained = config.get("pretrained_cfg")
    trained_on = trained.get("input_size") if isinstance(trained, dict) else None
    channels, height, width = trained_on if _is_sizes(trained_on, 3) else (3, None, None)
    arguments = config.get("model_args")
    for own in (config.get("num_channels"), arguments.get("in_chans") if isinstance(arguments, dict) else None):
        if type(own) is int and own > 0:
            channels = own
    size = config.get("image_size")
    if type(size) is int and size > 0:
        height = width = size
    elif _is_sizes(size, 2):
        height, width = size
    return ImageShape(channels=channels, height=height, width=width)


def _is_sizes(value: Any, count: int) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) == count and all(type(each) is int and each > 0 for each in value)
