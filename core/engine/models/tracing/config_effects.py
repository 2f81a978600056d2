"""Effects of settings on a small model: which one gives layers their biases, and whether a layer can be left out."""

from collections.abc import Collection

from torch import nn
from transformers import PreTrainedModel

from core.engine.architectures.config_part import part_of, with_part
from core.engine.models.tracing.build import build_traceable
from core.engine.models.tracing.configuration import Settings, language_part, language_path, open_config
from core.engine.models.tracing.resizing import without_layer
from core.errors import SecateurError

_PLACES = ("idx", "index", "layer_id", "layer_number")
"""Ends of the names of attributes that say which layer a module is of."""


def settings_of_biases(model: PreTrainedModel, settings: Settings, blocks: str) -> dict[str, frozenset[str]]:
    """Return the settings that are on or off and give layers of a block their biases, each with the layers' names."""
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
    """Return why the config cannot express the model without one of its layers; None where it can."""
    modules = _modules(model, blocks)
    characters = [_character(block) for block in modules]
    if len(set(characters)) > 1 or len(modules) > 1:
        for removed in sorted({0, len(modules) // 2, len(modules) - 1}):
            try:
                shorter = build_traceable(open_config(without_layer(settings, len(modules), removed)))
            except SecateurError as error:
                return f"the config without layer {removed} is refused: {str(error)[:200]}"
            expected = [each for layer, each in enumerate(characters) if layer != removed]
            if [_character(block) for block in _modules(shorter, blocks)] != expected:
                return "its config says by their numbers which layers are of which kind"
    return None


def _modules(model: PreTrainedModel, blocks: str) -> Collection[nn.Module]:
    modules = model.get_submodule(blocks)
    assert isinstance(modules, nn.ModuleList)
    return list(modules)


def _character(block: nn.Module) -> frozenset[tuple[object, ...]]:
    """Return what tells a block from others: the shapes of its parameters, and what its modules say of themselves."""
    shapes = {(name, tuple(parameter.shape)) for name, parameter in block.named_parameters()}
    facts = {
        (name, type(module).__name__, attribute, value)
        for name, module in block.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, bool | int | float | str) and not attribute.startswith("_")
        if not attribute.endswith(_PLACES)
    }
    return frozenset(shapes | facts)
