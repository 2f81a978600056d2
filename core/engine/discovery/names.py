"""Names of tensors in files, matched with a model's parameters by transformers' own conversions."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Final, TypeAlias

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    Split,
    WeightConverter,
    WeightRenaming,
    rename_source_key,
)

from core.engine.architectures.architecture import Architecture
from core.engine.checkpoints.key_patterns import numbers_of, pattern_of
from core.engine.checkpoints.pieces import Pieces, pieced_entry
from core.engine.checkpoints.safetensors_header import TensorEntry
from secateur_wire.errors import MissingTensors, UnsupportedArchitecture

_LAYER: Final = re.compile(r"^(.*?)(?<![^.])([0-9]+)\.(.+)$")


@dataclass(frozen=True)
class StoredNames:
    """Names of a model's parameters and saved buffers by the keys of its files.

    `pieced` are tensors that files store in pieces, by name. `merged` are tensors that are converted from several
    stored ones in another way, by the first of their keys.
    """

    names: Mapping[str, str]
    merged: Mapping[str, str] = field(default_factory=dict)
    pieced: Mapping[str, Pieces] = field(default_factory=dict)


def stored_names(model: PreTrainedModel, keys: Iterable[str]) -> StoredNames:
    """Return the parameter for each tensor of the files, if the model, which may have fewer layers, has it."""
    conversions = get_model_conversion_mapping(model)
    renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
    converters = [each for each in conversions if isinstance(each, WeightConverter)]
    own = dict.fromkeys(model.state_dict(), True)
    names = {}
    merged: dict[str, str] = {}
    rows: dict[str, dict[str, str]] = {}
    for key in keys:
        name, source = rename_source_key(key, renamings, converters, model.base_model_prefix, own)
        if name not in own and key in own:  # the library leaves such a key unchanged
            name, source = key, None
        if name in own:
            names[key] = name
            if source is not None:
                merged.setdefault(name, key)
                rows.setdefault(name, {})[source] = key
    pieced: dict[str, Pieces] = {}
    for name, parts in rows.items():
        converter = next(each for each in converters if each.source_patterns and set(parts) & set(each.source_patterns))
        pieced |= _pieces(name, parts, converter, model)
    return StoredNames(
        {key: name for key, name in names.items() if name not in pieced},
        {name: key for name, key in merged.items() if name not in pieced},
        pieced,
    )


def _pieces(
    name: str, parts: Mapping[str, str], converter: WeightConverter, model: PreTrainedModel
) -> dict[str, Pieces]:
    """Return how a parameter, and others from the same stored tensors, are built of pieces; none where they are not.

    `parts` are the keys of the files by the patterns of the converter that they match.
    """
    keys = tuple(parts[source] for source in converter.source_patterns if source in parts)
    numbers = numbers_of(name)
    if len(converter.operations) != 1 or any(numbers_of(key) != numbers for key in keys):
        return {}
    (operation,) = converter.operations
    targets = converter.target_patterns
    if isinstance(operation, Concatenate) and len(targets) == 1 and len(keys) == len(converter.source_patterns):
        return {name: Pieces(keys, operation.dim)}
    if not isinstance(operation, Split) or len(keys) != 1:
        return {}
    pieces, begin = {}, 0
    for target in targets:
        own = name.replace(targets[0], target)
        end = begin + model.get_parameter(own).shape[operation.dim]
        pieces[own] = Pieces(keys, operation.dim, begin, end)
        begin = end
    return pieces


def pieced_patterns(stored: StoredNames, architecture: Architecture) -> dict[str, Pieces]:
    """Return the pieces of tensors, by pattern of name; raises UnsupportedArchitecture where blocks differ."""
    patterns: dict[str, Pieces] = {}
    for name, pieces in stored.pieced.items():
        each = replace(pieces, stored=tuple(map(pattern_of, pieces.stored)))
        if patterns.setdefault(pattern_of(name), each) != each:
            raise UnsupportedArchitecture(
                f"{architecture.model_type}: {name[:200]} is made of other parts of {pieces.stored[0][:200]} than "
                "in the other layers",
                param="model",
            )
    return patterns


def renamed(stored: StoredNames, architecture: Architecture) -> dict[str, str]:
    """Return the patterns of keys that the architecture would map to wrong names, with the right ones.

    Raises UnsupportedArchitecture where a name does not follow from the key.
    """
    patterns: dict[str, str] = {}
    for key, name in stored.names.items():
        if name in stored.merged or architecture.module_name(key) == name:
            continue
        if numbers_of(key) != numbers_of(name):
            raise UnsupportedArchitecture(
                f"{architecture.model_type}: {key[:200]!r} in the files should be the model's {name[:200]!r}, but "
                "the numbers differ",
                param="model",
            )
        patterns[pattern_of(key)] = pattern_of(name)
    return patterns


def check_shapes(
    model: PreTrainedModel, stored: StoredNames, tensors: Mapping[str, TensorEntry], without: Collection[str]
) -> None:
    """Require the files to have all parameters of a model, in its shapes, except the named ones.

    Tensors converted from several stored ones are not checked. Raises MissingTensors, and UnsupportedArchitecture where
    parameters are parts of stored ones.
    """
    by_name = {name: tensors[key] for key, name in stored.names.items() if name not in stored.merged}
    for name, pieces in stored.pieced.items():
        by_name[name] = pieced_entry(name, [tensors[key] for key in pieces.stored], pieces)
    stored_ones: set[int] = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        entry = by_name.get(name)
        if entry is not None:
            stored_ones.add(id(parameter))
            if entry.shape != tuple(parameter.shape):
                raise MissingTensors(
                    f"{entry.name[:200]} has shape {list(entry.shape)}, but config.json needs {list(parameter.shape)}",
                    param="model",
                )
    for name, parameter in model.named_parameters():
        if id(parameter) not in stored_ones and name not in stored.merged and name not in without:
            if stored.merged:
                raise UnsupportedArchitecture(
                    f"{model.config.model_type}: the files do not have {name}, but other tensors that it is "
                    f"computed from, such as {next(iter(stored.merged.values()))[:200]}",
                    param="model",
                )
            raise MissingTensors(f"the files lack {name}", param="model")


_Numbered: TypeAlias = Mapping[int, set[tuple[str, tuple[int, ...]]]]
"""Names and shapes of tensors by layer number."""


@dataclass(frozen=True)
class StoredLayers:
    """Layers in the files: their number, and the number of first layers that include a block of every kind."""

    count: int
    covering: int


def stored_layers(
    tensors: Mapping[str, TensorEntry], lists: Iterable[Iterable[object]] = (), among: int | None = None
) -> StoredLayers:
    """Return the number of layers in files, and how many of the first layers include a block of every kind.

    A layer is a number that follows the prefix of most tensor names. Blocks are of one kind if their tensors agree in
    names and shapes, and if the `lists` of the config that have an entry for each layer agree. Where files have the
    layers of several models, the largest with `among` layers is meant.
    """
    by_prefix: dict[str, dict[int, set[tuple[str, tuple[int, ...]]]]] = {}
    for key, entry in tensors.items():
        if match := _LAYER.match(key):
            prefix, number, rest = match[1], int(match[2]), match[3]
            by_prefix.setdefault(prefix, {}).setdefault(number, set()).add((rest, entry.shape))
    if not by_prefix:
        raise MissingTensors("the files have no numbered layers", param="model")
    of_number = [each for each in by_prefix.values() if max(each) + 1 == among]
    layers = max(of_number, key=_numel) if of_number else max(by_prefix.values(), key=_names)
    count = max(layers) + 1
    if len(layers) != count:
        absent = next(layer for layer in range(count) if layer not in layers)
        raise MissingTensors(f"the files have nothing of layer {absent}, but have layer {count - 1}", param="model")
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
