"""Names of tensors in files: transformers' own conversions tell which of a model's parameters each one is."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Final, TypeAlias

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from core.engine.architectures.architecture import Architecture
from core.engine.checkpoints.safetensors_header import TensorEntry
from core.errors import MissingTensors, UnsupportedArchitecture

_NUMBER: Final = re.compile(r"(?<![^.])[0-9]+(?![^.])")
_LAYER: Final = re.compile(r"^(.*?)(?<![^.])([0-9]+)\.(.+)$")


@dataclass(frozen=True)
class StoredNames:
    """Names of a model's parameters and saved buffers by the keys of its files.

    `merged` are those that tensors of the files have to be made into, by the first of their keys.
    """

    names: Mapping[str, str]
    merged: Mapping[str, str] = field(default_factory=dict)


def pattern(name: str) -> str:
    """Return a name with `{}` for each of its numbers."""
    return _NUMBER.sub("{}", name)


def stored_names(model: PreTrainedModel, keys: Iterable[str]) -> StoredNames:
    """Return which parameter each tensor of the files is, where it is one of a model that may have fewer layers."""
    conversions = get_model_conversion_mapping(model)
    renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
    converters = [each for each in conversions if isinstance(each, WeightConverter)]
    own = dict.fromkeys(model.state_dict(), True)
    names = {}
    merged: dict[str, str] = {}
    for key in keys:
        name, converter = rename_source_key(key, renamings, converters, model.base_model_prefix, own)
        if name in own:
            names[key] = name
            if converter is not None:
                merged.setdefault(name, key)
    return StoredNames(names, merged)


def renamed(stored: StoredNames, architecture: Architecture) -> dict[str, str]:
    """Return the patterns of keys that the architecture would take for other names than they have.

    Raises UnsupportedArchitecture where a name does not follow from the key.
    """
    patterns: dict[str, str] = {}
    for key, name in stored.names.items():
        if name in stored.merged or architecture.module_name(key) == name:
            continue
        if _NUMBER.findall(key) != _NUMBER.findall(name):
            raise UnsupportedArchitecture(
                f"{architecture.model_type}: {key[:200]!r} of the files is the model's {name[:200]!r}, which has other "
                "numbers",
                param="model",
            )
        patterns[pattern(key)] = pattern(name)
    return patterns


def check_shapes(
    model: PreTrainedModel, stored: StoredNames, tensors: Mapping[str, TensorEntry], without: Collection[str]
) -> None:
    """Require the files to have all parameters of a model but those named, in its shapes.

    What several tensors are made into is not checked. Raises MissingTensors, and UnsupportedArchitecture where
    parameters are parts of stored ones.
    """
    by_name = {name: tensors[key] for key, name in stored.names.items() if name not in stored.merged}
    stored_ones: set[int] = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        entry = by_name.get(name)
        if entry is not None:
            stored_ones.add(id(parameter))
            if entry.shape != tuple(parameter.shape):
                raise MissingTensors(
                    f"{entry.name[:200]} has shape {list(entry.shape)}, config.json needs {list(parameter.shape)}",
                    param="model",
                )
    for name, parameter in model.named_parameters():
        if id(parameter) not in stored_ones and name not in stored.merged and name not in without:
            if stored.merged:
                raise UnsupportedArchitecture(
                    f"{model.config.model_type}: the files hold no {name}, but other tensors that it is made of, as "
                    f"{next(iter(stored.merged.values()))[:200]}",
                    param="model",
                )
            raise MissingTensors(f"the files lack {name}", param="model")


_Numbered: TypeAlias = Mapping[int, set[tuple[str, tuple[int, ...]]]]
"""Names and shapes of tensors by the number of their layer."""


@dataclass(frozen=True)
class StoredLayers:
    """Layers that the files hold: how many, and how many of the first have a block of every kind."""

    count: int
    covering: int


def stored_layers(
    tensors: Mapping[str, TensorEntry], lists: Iterable[Iterable[object]] = (), among: int | None = None
) -> StoredLayers:
    """Return the layers of files: numbers after the prefix that most names have, told apart by names and shapes.

    `lists` are settings of the config; those with an entry for each layer tell layers apart too. Where files have
    layers of several models, `among` is the number of those that are meant; of several, the largest are.
    """
    by_prefix: dict[str, dict[int, set[tuple[str, tuple[int, ...]]]]] = {}
    for key, entry in tensors.items():
        if match := _LAYER.match(key):
            prefix, number, rest = match[1], int(match[2]), match[3]
            by_prefix.setdefault(prefix, {}).setdefault(number, set()).add((rest, entry.shape))
    if not by_prefix:
        raise MissingTensors("the files hold no numbered layers", param="model")
    of_number = [each for each in by_prefix.values() if max(each) + 1 == among]
    layers = max(of_number, key=_numel) if of_number else max(by_prefix.values(), key=_names)
    count = max(layers) + 1
    if len(layers) != count:
        absent = next(layer for layer in range(count) if layer not in layers)
        raise MissingTensors(f"the files hold nothing of layer {absent}, but of layer {count - 1}", param="model")
    columns = [list(map(repr, each)) for each in map(list, lists) if len(each) == count]
    seen: set[object] = set()
    covering = 0
    for layer in range(count):
        signature = (frozenset(layers[layer]), tuple(column[layer] for column in columns))
        if signature not in seen:
            seen.add(signature)
            covering = layer + 1
    return StoredLayers(count, min(count, max(covering, 2)))


def _names(layers: _Numbered) -> int:
    return sum(map(len, layers.values()))


def _numel(layers: _Numbered) -> int:
    return sum(prod(shape) for tensors in layers.values() for _, shape in tensors)
