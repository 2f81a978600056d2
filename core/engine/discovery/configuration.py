"""Configs for discovery, built from JSON by transformers' own classes."""

import copy
from collections.abc import Mapping
from functools import reduce
from typing import Any, Final, TypeAlias

import transformers
from pydantic import JsonValue
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from core.engine.checkpoints.special_floats import with_floats
from secateur_wire.errors import UnsupportedArchitecture, UnusableModel

Settings: TypeAlias = Mapping[str, JsonValue]
"""Content of config.json, or of a part of it."""
_NOT_READ: Final = (
    "auto_map",
    "quantization_config",
    "dtype",
    "torch_dtype",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
)
"""Settings of the weights' storage or of the code to run, which do not describe the model."""


def config_class(settings: Settings) -> type[PretrainedConfig]:
    """Return the class of a config; raises UnsupportedArchitecture for a type that transformers does not know."""
    model_type = settings.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise UnsupportedArchitecture(
            f"config.json says model_type {str(model_type)[:100]!r}, which transformers {transformers.__version__} "
            "does not know",
            param="model",
        )
    known: type[PretrainedConfig] = CONFIG_MAPPING[model_type]
    return known


def read_settings(config_json: Settings) -> dict[str, JsonValue]:
    """Return the settings that describe the model, by the names of its config's class."""
    return _with_class_names(config_json, config_class(config_json))


def _with_class_names(settings: Settings, known: type[PretrainedConfig] | None) -> dict[str, JsonValue]:
    """Return settings under the names of a class of configs, and nested configs under the names of theirs."""
    names = {} if known is None else known.attribute_map
    inside = {} if known is None else known.sub_configs
    named: dict[str, JsonValue] = {}
    for name, value in settings.items():
        if name in inside and isinstance(value, dict):
            named[name] = _with_class_names(value, _nested_class(value.get("model_type"), inside[name]))
        elif name not in _NOT_READ:
            named[names.get(name, name)] = with_floats(value)
    return named


def _nested_class(model_type: JsonValue, expected: object) -> type[PretrainedConfig] | None:
    """Return the class of a nested config: that of its type, else the expected one."""
    if isinstance(model_type, str) and model_type in CONFIG_MAPPING:
        named: type[PretrainedConfig] = CONFIG_MAPPING[model_type]
        return named
    return expected if isinstance(expected, type) and issubclass(expected, PretrainedConfig) else None


def open_config(settings: Settings) -> PretrainedConfig:
    """Return the config object of settings; raises UnsupportedArchitecture or UnusableModel."""
    named_class = config_class(settings)
    try:
        config = named_class.from_dict(copy.deepcopy(dict(settings)))
    except Exception as error:  # config classes validate with exceptions of any type
        raise UnusableModel(
            f"config.json is refused by the config class of {settings['model_type']}: {str(error)[:300]}", param="model"
        ) from error
    assert isinstance(config, PretrainedConfig)
    return config


def causal_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """Return transformers' own class that a config names in `architectures`; raises UnsupportedArchitecture.

    For a config with parts the class is that of the whole config: a part's class alone would open it without the
    others.
    """
    expected = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    named = [str(each) for each in config.architectures or ()]
    if expected is None or expected not in named:
        shown = ", ".join(repr(each[:100]) for each in named[:5]) or "none"
        wanted = "has no causal language model" if expected is None else f"has {expected}"
        raise UnsupportedArchitecture(
            f"config.json names {shown} in 'architectures', but the type {config.model_type!r} {wanted}", param="model"
        )
    model_class: type[PreTrainedModel] = getattr(transformers, expected)
    taken: Any = model_class.config_class
    if language_path(config) and not isinstance(config, taken):
        raise UnsupportedArchitecture(
            f"{config.model_type}: config.json describes more than a language model, but {expected} opens only its "
            "language model: save only that",
            param="model",
        )
    return model_class


def language_path(config: PretrainedConfig) -> tuple[str, ...]:
    """Return the keys that lead to the decoder's part of a config; none where it is the whole config."""
    part = text_config(config)
    return () if type(part) is type(config) else _path_to(part, config) or ()


def _path_to(part: PretrainedConfig, config: PretrainedConfig) -> tuple[str, ...] | None:
    for name in config.sub_configs:
        inner = getattr(config, name, None)
        if inner is part:
            return (name,)
        if isinstance(inner, PretrainedConfig) and (rest := _path_to(part, inner)) is not None:
            return (name, *rest)
    return None


def language_part(config: PretrainedConfig) -> PretrainedConfig:
    """Return the part of a config at `language_path`, which may be the config itself."""
    part: PretrainedConfig = reduce(getattr, language_path(config), config)
    return part


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """Return transformers' own choice of the decoder's part of a config, which may be the config itself."""
    part: PretrainedConfig = config.get_text_config(decoder=True)
    return part
