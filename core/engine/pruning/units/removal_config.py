"""Config.json of a model that lost units, and the biases that it can add to the layers that read them."""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.config import part_of, with_part
from core.engine.architectures.heterogeneous import layer_settings, per_layer_config
from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.architectures.units import BLOCK_KINDS, KindName, UnitKind
from core.engine.models.folder import ModelFolder
from core.engine.models.loading import language_config
from core.engine.models.streamed import StreamedModel
from core.engine.models.tensors import to_out_in
from core.engine.pruning.units.removal import UnitCounts
from secateur_wire.base import JsonObject


def config_after_removal(
    folder: ModelFolder, structure: ModelStructure, kinds: Sequence[UnitKind], kept: UnitCounts
) -> JsonObject:
    """Return the config.json of an opened model after the removal of units of these kinds.

    Where all layers have one shape it is a plain config of the family; else it has the differences of each layer.
    """
    raw, family = folder.raw_config, folder.family
    settings, language = part_of(raw, family.config_path), language_config(folder.config, family)
    changed = dict(settings) | dict.fromkeys(kept.biases, True)
    if family.config_value(raw, "num_hidden_layers") is not None:  # otherwise lists by layer imply it
        changed[family.config_key(raw, "num_hidden_layers")] = len(kept.layers)
    for name in family.lists_by_layer:
        if entries := vars(language).get(name):  # values that follow from other settings are not among them
            changed[name] = [entries[layer] for layer in kept.layers]
    sizes = [_sizes(structure.layers[layer], kinds, each) for layer, each in kept.layers.items()]
    layers = [_settings(family, each) for each in sizes]
    in_file = {family.width_key} if family.has_own_widths else set()
    before = {layer: _settings(family, structure.layers[layer].sizes) for layer in kept.layers}
    shared = _without(_first_sizes(_settings(family, each.sizes) for each in structure.layers), in_file)
    if layer_settings(raw) is not None:
        shared = {name: settings[name] for name in shared}
    alike = shared | _without(_first_sizes(layers), in_file)
    is_accepted = all(kind.accepts(structure, _first_sizes(sizes), language.hidden_size) for kind in BLOCK_KINDS)
    if is_accepted and all(_without(each, in_file).items() <= alike.items() for each in layers):
        shared = alike
    for kind in _offered(family):
        changed |= kind.fixed_settings(family, structure)
    # the source file's own keys are unknown here, so all settings are written again
    usual = [{} if layer_settings(raw) is not None else each for each in before.values()]
    own = [
        {
            name: value
            for name, value in each.items()
            if value != (theirs.get(name) if name in in_file else shared[name])
        }
        for each, theirs in zip(layers, usual, strict=True)
    ]
    others = {name: value for name, value in changed.items() if language.attribute_map.get(name) not in shared}
    return per_layer_config(with_part(raw, family.config_path, others | shared), family, own)


def narrow_model(streamed: StreamedModel, raw: JsonObject) -> StreamedModel:
    """Return the model of another config.json with empty blocks, which shares everything else with `streamed`."""
    folder = streamed.folder
    return StreamedModel(
        replace(folder, config=folder.config_of(raw)),
        dtype=streamed.dtype,
        device=streamed.device,
        outer=streamed.model,
    )


def _without(settings: Mapping[str, int], names: Container[str]) -> dict[str, int]:
    return {name: value for name, value in settings.items() if name not in names}


def _offered(family: Architecture) -> list[UnitKind]:
    return [kind for kind in BLOCK_KINDS if family.axes(kind.name)]


def _sizes(shape: LayerShape, kinds: Sequence[UnitKind], counts: LayerCounts) -> dict[str, int]:
    sizes = dict(shape.sizes)
    for kind in kinds:
        sizes |= kind.sizes(shape, counts.units[kind.name])
    return sizes


def _settings(family: Architecture, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the settings of a layer of these sizes, by their names in the family's config.

    A layer without units of a kind has no setting for it.
    """
    settings = ((key, *each) for kind in _offered(family) for key, each in kind.settings(family).items())
    return {key: factor * sizes[size] for key, size, factor in settings if sizes[size]}


def _first_sizes(layers: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return each size from the first layer in which it is above 0."""
    first: dict[str, int] = {}
    for each in layers:
        first = {name: number for name, number in each.items() if number} | first
    return first


@dataclass(frozen=True)
class OutputBiases:
    """Kinds of units whose reading layer has a bias or can get one.

    `settings` are the config's settings that turn biases on, `added` the largest number of parameters they add.
    """

    kinds: frozenset[KindName]
    settings: list[str]
    added: int


def output_biases(folder: ModelFolder, kinds: Collection[KindName]) -> OutputBiases:
    """Return the settings that add biases to the readers of these kinds of units, where possible."""
    family = folder.family

    def has_bias(linear: str) -> bool:
        names = (f"{family.blocks}.{layer}.{linear}.bias" for layer in range(folder.description.layers))
        return any(name in folder.tensors for name in names)

    sublayers = {kind: sublayer for kind in kinds if (sublayer := family.sublayer_of(kind)) is not None}
    settings = {each.bias for each in sublayers.values() if each.bias is not None and not has_bias(each.output)}
    given = [name for each in family.sublayers if each.bias in settings for group in each.groups for name in group]
    without_bias = [name for name in given if not has_bias(name)]
    added = {f"{family.blocks}.{layer}.{name}" for layer in range(folder.description.layers) for name in without_bias}
    return OutputBiases(
        frozenset(kind for kind, each in sublayers.items() if has_bias(each.output) or each.bias is not None),
        sorted(settings),
        sum(each.out_features for each in folder.description.linears if each.name in added),
    )


def with_biases(family: Architecture, tensors: Mapping[str, Tensor], block: nn.Module) -> dict[str, Tensor]:
    """Return a block's tensors, and the biases of `block` that they lack, at zero; `block` may be narrower."""
    biases = {}
    for name, _ in block.named_parameters():
        if name not in tensors:
            weight = to_out_in(tensors[f"{name.removesuffix('.bias')}.weight"], family)
            biases[name] = torch.zeros(len(weight), dtype=weight.dtype, device=weight.device)
    return {**tensors, **biases}
