"""Shapes of a model's layers: prunable layers as matrices, removable units, and entries for tokens."""

import fnmatch
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict, Field

from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from secateur_wire.errors import UnsupportedArchitecture


class LinearShape(BaseModel):
    """Prunable layer. `name` is the module's full name, `layer` its decoder layer, or its own place in a classifier.

    A convolution reads `kernel` positions of `in_features / kernel` channels each. A stack of `experts` holds one
    matrix of that shape for each expert, under the parameter's name; each matrix is pruned by itself.
    """

    name: str
    layer: int
    out_features: int
    in_features: int
    kernel: int = 1
    experts: int | None = Field(default=None, exclude_if=lambda experts: experts is None)

    @property
    def numel(self) -> int:
        return self.out_features * self.in_features * (self.experts or 1)

    def matches(self, patterns: Iterable[str]) -> bool:
        """Return True if a `skip_modules` entry matches this layer: its last name, a dotted suffix, or a glob."""
        return any(
            self.name == pattern or self.name.endswith("." + pattern) or fnmatch.fnmatchcase(self.name, pattern)
            for pattern in patterns
        )


class LayerShape(BaseModel):
    """Sizes of one decoder layer.

    `parameters` counts all parameters; the other fields are the sizes that the kinds of units read.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int] = Field(init=False)

    parameters: int

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return the numbers by which units are counted, such as channels and heads."""
        return self.__pydantic_extra__


class ModelStructure(BaseModel):
    """Layers of a model, and the facts of all layers that the kinds of units need."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, bool | int] = Field(init=False)

    layers: list[LayerShape]

    @property
    def facts(self) -> Mapping[str, bool | int]:
        """Return the facts of all layers that the kinds of units need, such as the parameters of one unit."""
        return self.__pydantic_extra__

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    def of_layers(self, layers: Iterable[int]) -> "ModelStructure":
        """Return the structure of a model with these layers alone."""
        return self.model_copy(update={"layers": [self.layers[layer] for layer in layers]})

    @property
    def is_uniform(self) -> bool:
        """Return True if all layers have one shape, where a layer without units of a kind is ignored for that kind."""
        return all(len(set(filter(None, each))) < 2 for each in self._sizes().values())

    @property
    def is_alike(self) -> bool:
        """Return True if all layers have one shape and the same kinds of units."""
        return all(len(set(each)) < 2 for each in self._sizes().values())

    def _sizes(self) -> dict[str, list[int]]:
        return {name: [layer.sizes[name] for layer in self.layers] for name in self.layers[0].sizes}


class VocabularyTable(BaseModel):
    """Tensor with an entry for each token, of so many parameters and bytes; `others` are no token's.

    A table of numbers, as of the experts that a token goes to, has no parameters.
    """

    tokens: int
    parameters: int
    bytes: int
    others: int = 0

    def of_tokens(self, tokens: int) -> "VocabularyTable":
        """Return the table of a model that keeps this number of tokens."""
        return self.model_copy(update={"tokens": min(tokens, self.tokens)})

    def in_dtype(self, dtype: str) -> "VocabularyTable":
        """Return the table with its parameters in a dtype; numbers stay as they are."""
        return self.model_copy(update={"bytes": self.parameters * WEIGHT_BYTES[dtype] or self.bytes})


def cached_values_of_group(structure: ModelStructure) -> int:
    """Return the values per token that one KV head adds to the cache: a key and a value.

    Raises UnsupportedArchitecture where it is not known.
    """
    head_size = structure.facts.get("head_dim", 0)
    if not head_size:
        raise UnsupportedArchitecture(
            "target.memory_bytes: the size of this model's cache of keys and values is not known: use target.bytes",
            param="target.memory_bytes",
        )
    return 2 * head_size


def cache_bytes(structure: ModelStructure, tokens: int, value_bytes: float) -> int:
    """Return the bytes of the cache after so many tokens of one sequence; raises UnsupportedArchitecture."""
    groups = sum(layer.sizes.get("kv_heads", 0) for layer in structure.layers)
    return round(groups * cached_values_of_group(structure) * tokens * value_bytes)
