"""Model sources whose architecture is not declared and may be discovered.

The architecture follows from the config and the headers of the weights, but the discovery needs a library that is not
loaded here. Config and headers are kept, so that the discovery can run at any time, and again for another version of
the library. They are kept packed: only who opens the model, or describes it, unpacks them.
"""

import base64
import json
import zlib
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, Discriminator, Tag, TypeAdapter

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
from core.engine.architectures.discovered import content_digest
from core.engine.architectures.registry import CLASSIFIER_ARCHITECTURES, declared_architecture
from core.engine.checkpoints.quantisation import plain_config, quantisation_of
from core.engine.checkpoints.safetensors_header import WEIGHT_DTYPES, TensorEntry, dtype_bytes
from secateur_wire.errors import CorruptSafetensors, UnusableModel

UNDISCOVERED: Final = "undiscovered"
"""Task of a model whose architecture is not known yet."""


MOST_DESCRIPTION_BYTES: Final = 2 * 2**20
"""Largest description in bytes of JSON. The largest known models, of 214,000 tensors, take less than half."""
_MOST_CONTENT_BYTES: Final = 2**27

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]


class UndiscoveredFacts(BaseModel):
    """Facts of a language model before its architecture is discovered.

    `prunable_parameters` is 0, because it is unknown; so is `layers` if the config has no usual name for it. `digest`
    is that of config and headers, by which a discovery is found.
    """

    task: Literal["undiscovered"] = UNDISCOVERED
    family: str
    architecture: str
    parameters: int
    prunable_parameters: int = 0
    bytes: int
    dtype: str
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

    def described(self, architecture: Architecture) -> ModelDescription:
        """Return the model's description under the discovered architecture; raises UnusableModel kinds."""
        return describe_language_model(self.config, by_name(self.entries(), architecture), architecture)


_contents: TypeAdapter[tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]]]] = TypeAdapter(
    tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]]]
)
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
    return UndiscoveredModel.of(
        plain_config(config),
        {name: (entry.dtype, entry.shape) for name, entry in tensors.items()},
        family=model_type[:100],
        architecture=names[0][:100],
        parameters=sum(entry.numel for entry in tensors.values() if entry.dtype in WEIGHT_DTYPES),
        bytes=sum(entry.nbytes for entry in tensors.values()),
        dtype=WEIGHT_DTYPES[dtypes[0]],
        layers=layers if type(layers) is int and 0 < layers < 2**31 else 0,
    )


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
