"""Facts of a config for an architecture: its names of common settings, its defaults, and effects of settings.

A small model shows which setting gives layers biases, and if a layer can be left out.
"""

from collections.abc import Collection

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from core.engine.architectures.config import part_of, with_part
from core.engine.discovery.build import build_traceable
from core.engine.discovery.configuration import (
    Settings,
    language_part,
    language_path,
    open_config,
)
from core.engine.discovery.resizing import without_layer
from secateur_wire.errors import SecateurError

_READ_FROM_CONFIG = (
    "num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings", "num_attention_heads",
)  # fmt: skip


_NO_LIMIT = 2**15
"""Context length of a model without positions."""


def config_keys(config: PretrainedConfig) -> dict[str, str]:
    """Return the config's names for the settings in use where they differ from the common names."""
    keys = {name: config.attribute_map[name] for name in _READ_FROM_CONFIG if name in config.attribute_map}
    return {name: key for name, key in keys.items() if key != name}


def config_defaults(config: PretrainedConfig, settings: Settings) -> dict[str, int]:
    """Return the values of settings in use that config.json omits."""
    keys = config_keys(config)
    defaults = {}
    for name in _READ_FROM_CONFIG:
        if keys.get(name, name) not in settings:
            value = config.to_dict().get(keys.get(name, name), _NO_LIMIT if name == "max_position_embeddings" else None)
            if type(value) is int:
                defaults[name] = value
    return defaults


def is_tied_by_default(config: PretrainedConfig, path: tuple[str, ...]) -> bool:
    """Return True if a config without the setting ties the head, by its class, or by the class of its part."""
    return bool(getattr(config if path else type(config)(), "tie_word_embeddings", False))


_LAYER_NUMBER_SUFFIXES = ("idx", "index", "layer_id", "layer_number")
"""Suffixes of attributes that give a module's layer number."""


def settings_of_biases(model: PreTrainedModel, settings: Settings, blocks: str) -> dict[str, frozenset[str]]:
    """Return the boolean settings that give layers of a block biases, each with the layers' names."""
    before = _biases(model, blocks)
    effects = {}
    config = open_config(settings)
    path = language_path(config)
    for name, value in language_part(config).to_dict().items():
        if isinstance(value, bool) and "bias" in name:
            changed = with_part(settings, path, {**part_of(settings, path), name: not value})
            try:
                after = _biases(build_traceable(open_config(changed)), blocks)
            except SecateurError:
                continue
            if before ^ after:
                effects[name] = before ^ after
    return effects


def _biases(model: PreTrainedModel, blocks: str) -> frozenset[str]:
    first = model.get_submodule(f"{blocks}.0")
    return frozenset(name.removesuffix(".bias") for name, _ in first.named_parameters() if name.endswith(".bias"))


def reason_to_keep_layers(model: PreTrainedModel, settings: Settings, blocks: str) -> str | None:
    """Return the reason why the config cannot express the model without one of its layers; None where it can."""
    modules = _modules(model, blocks)
    characters = [_distinguishing_facts(block) for block in modules]
    if len(set(characters)) > 1 or len(modules) > 1:
        for removed in sorted({0, len(modules) // 2, len(modules) - 1}):
            try:
                shorter = build_traceable(open_config(without_layer(settings, len(modules), removed)))
            except SecateurError as error:
                return f"the config without layer {removed} is refused: {str(error)[:200]}"
            expected = [each for layer, each in enumerate(characters) if layer != removed]
            if [_distinguishing_facts(block) for block in _modules(shorter, blocks)] != expected:
                return "its config gives the kind of a layer by the number of the layer"
    return None


def _modules(model: PreTrainedModel, blocks: str) -> Collection[nn.Module]:
    modules = model.get_submodule(blocks)
    assert isinstance(modules, nn.ModuleList)
    return list(modules)


def _distinguishing_facts(block: nn.Module) -> frozenset[tuple[object, ...]]:
    """Return the facts that distinguish a block: the shapes of its parameters, and attributes of its modules."""
    shapes = {(name, tuple(parameter.shape)) for name, parameter in block.named_parameters()}
    facts = {
        (name, type(module).__name__, attribute, value)
        for name, module in block.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, bool | int | float | str) and not attribute.startswith("_")
        if not attribute.endswith(_LAYER_NUMBER_SUFFIXES)
    }
    return frozenset(shapes | facts)
