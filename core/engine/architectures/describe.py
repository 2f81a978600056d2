"""Descriptions of model folders. The architecture tells a language model from an image classifier."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import Discriminator, Tag, TypeAdapter

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.classifier_architecture import ClassifierDescription, describe_classifier
from core.engine.architectures.description import ModelDescription, inspect_folder, read_config, read_tensors
from core.engine.architectures.registry import CLASSIFIER_ARCHITECTURES
from core.engine.checkpoints.quantisation import QUANTISATION_KEY, quantisation_of
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from secateur_wire.errors import UnusableModel
from secateur_wire.job_body import StoredDtype

DescriptionType = TypeVar(
    "DescriptionType", ModelDescription, ClassifierDescription, ModelDescription | ClassifierDescription
)


def task_of(value: Any) -> str:
    named = value.get("task") if isinstance(value, Mapping) else getattr(value, "task", None)
    return str(named)


AnyDescription = Annotated[
    Annotated[ModelDescription, Tag("language-model")] | Annotated[ClassifierDescription, Tag("image-classification")],
    Discriminator(task_of),
]
Description: TypeAlias = ModelDescription | ClassifierDescription
descriptions: TypeAdapter[Description] = TypeAdapter(AnyDescription)


def describe_folder(folder: Path, *, own_artifact: bool = False, discovered: Architecture | None = None) -> Description:
    """Describe a model folder from its config and headers; raises UnusableModel kinds or UnsupportedArchitecture.

    `own_artifact` and `discovered` are as in `read_config`.
    """
    config = read_config(folder, own_artifact=own_artifact, discovered=discovered)
    named = config.get("architectures")
    for architecture in named if isinstance(named, list) else []:
        if isinstance(architecture, str) and architecture in CLASSIFIER_ARCHITECTURES:
            if quantisation_of(config) is not None:
                raise UnusableModel(
                    f"config.json holds {QUANTISATION_KEY!r}: the weights of image classifiers are not dequantised; "
                    "provide float16, bfloat16 or float32 weights",
                    param="model",
                )
            family = CLASSIFIER_ARCHITECTURES[architecture]
            return describe_classifier(config, family, read_tensors(folder, family))
    return inspect_folder(folder, own_artifact=own_artifact, discovered=discovered)


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
