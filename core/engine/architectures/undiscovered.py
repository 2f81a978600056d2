"""Model sources whose architecture is not declared and may be discovered.

The architecture follows from the config and the headers of the weights, but the discovery needs a library that is not
loaded here. Config and headers are kept, so that the discovery can run at any time, and again for another version of
the library.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, PlainSerializer, Tag, TypeAdapter

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.classifier_architecture import ClassifierDescription
from core.engine.architectures.config_limits import check_sizes
from core.engine.architectures.describe import describe_folder, task_of
from core.engine.architectures.description import (
    ModelDescription,
    by_name,
    describe_language_model,
    read_config,
    stored_tensors,
)
from core.engine.architectures.registry import CLASSIFIER_ARCHITECTURES, declared_architecture
from core.engine.checkpoints.quantisation import plain_config, quantisation_of
from core.engine.checkpoints.safetensors_header import WEIGHT_DTYPES, TensorEntry, dtype_bytes
from secateur_wire.errors import CorruptSafetensors, UnusableModel

UNDISCOVERED: Final = "undiscovered"
"""Task of a model whose architecture is not known yet."""


def _parsed(config: Any) -> Any:
    return json.loads(config) if isinstance(config, str) else config


class UndiscoveredModel(BaseModel):
    """Config and headers of a language model before its architecture is discovered.

    `tensors` have the dtype and shape by the file's key. They and `config` describe the dequantised model.
    `prunable_parameters` is 0, because it is unknown; so is `layers` if the config has no usual name for it. The config
    is stored as a string, because configs may contain infinities, which the database's JSON cannot store.
    """

    task: Literal["undiscovered"] = UNDISCOVERED
    family: str
    architecture: str
    parameters: int
    prunable_parameters: int = 0
    bytes: int
    dtype: str
    layers: int = 0
    config: Annotated[dict[str, Any], BeforeValidator(_parsed), PlainSerializer(json.dumps, return_type=str)]
    tensors: dict[str, tuple[str, tuple[int, ...]]]

    def entries(self) -> dict[str, TensorEntry]:
        """Return the tensors as entries without a file."""
        return {
            name: TensorEntry(name, dtype, shape, Path(), 0, dtype_bytes(dtype, shape))
            for name, (dtype, shape) in self.tensors.items()
        }

    def described(self, architecture: Architecture) -> ModelDescription:
        """Return the model's description under the discovered architecture; raises UnusableModel kinds."""
        return describe_language_model(self.config, by_name(self.entries(), architecture), architecture)


Source = ModelDescription | ClassifierDescription | UndiscoveredModel


sources: TypeAdapter[Source] = TypeAdapter(
    Annotated[
        Annotated[ModelDescription, Tag("language-model")]
        | Annotated[ClassifierDescription, Tag("image-classification")]
        | Annotated[UndiscoveredModel, Tag(UNDISCOVERED)],
        Discriminator(task_of),
    ]
)


def describe_source(folder: Path) -> Source:
    """Describe a folder as `describe_folder` does; where the architecture is not declared, from the headers alone.

    Raises UnusableModel kinds, and UnsupportedArchitecture where config.json names no architecture.
    """
    config = read_config(folder)
    named, model_type = config.get("architectures"), config.get("model_type")
    names = [each for each in named if isinstance(each, str)] if isinstance(named, list) else []
    if (
        not names
        or not isinstance(model_type, str)
        or any(each in CLASSIFIER_ARCHITECTURES or declared_architecture(each, model_type) for each in names)
    ):
        return describe_folder(folder)
    tensors = stored_tensors(folder, quantisation_of(config))
    check_sizes(config, tensors)
    for name in tensors:
        if not name.isprintable():
            raise CorruptSafetensors(f"tensor {ascii(name)[:200]} has a name that is no text", param="model")
    stored = Counter[str]()
    for entry in tensors.values():
        stored[entry.dtype] += entry.numel
    dtypes = [dtype for dtype, _ in stored.most_common() if dtype in WEIGHT_DTYPES]
    if not dtypes:
        raise UnusableModel("weights are not stored as floats; float32, float16 or bfloat16 is needed", param="model")
    layers = config.get("num_hidden_layers")
    return UndiscoveredModel(
        family=model_type[:100],
        architecture=names[0][:100],
        parameters=sum(entry.numel for entry in tensors.values() if entry.dtype in WEIGHT_DTYPES),
        bytes=sum(entry.nbytes for entry in tensors.values()),
        dtype=WEIGHT_DTYPES[dtypes[0]],
        layers=layers if type(layers) is int and 0 < layers < 2**31 else 0,
        config=plain_config(config),
        tensors={name: (entry.dtype, entry.shape) for name, entry in tensors.items()},
    )
