"""What any model folder holds: a language model or an image classifier, told apart by the architecture it names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Tag, TypeAdapter

from core.catalogue.classifiers import CLASSIFIERS, ClassifierDescription, describe_classifier
from core.catalogue.model_folder import ModelDescription, inspect_folder, read_config, read_tensors


def _task(value: Any) -> str:
    """Descriptions made before there were classifiers name no task."""
    named = value.get("task") if isinstance(value, Mapping) else getattr(value, "task", None)
    return str(named or "language-model")


AnyDescription = Annotated[
    Annotated[ModelDescription, Tag("language-model")] | Annotated[ClassifierDescription, Tag("image-classification")],
    Discriminator(_task),
]
descriptions: TypeAdapter[ModelDescription | ClassifierDescription] = TypeAdapter(AnyDescription)


def describe_folder(folder: Path, *, own_artifact: bool = False) -> ModelDescription | ClassifierDescription:
    """Describe a model folder from its config and headers; raises UnusableModel kinds or UnsupportedArchitecture.

    `own_artifact` is what `read_config` calls so.
    """
    config = read_config(folder, own_artifact=own_artifact)
    named = config.get("architectures")
    for architecture in named if isinstance(named, list) else []:
        if architecture in CLASSIFIERS:
            family = CLASSIFIERS[architecture]
            return describe_classifier(config, family, read_tensors(folder, family))
    return inspect_folder(folder, own_artifact=own_artifact)
