"""Configs of discovery: made from JSON by transformers' own classes."""

import copy
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import transformers
from pydantic import JsonValue
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from core.engine.checkpoints.special_floats import with_floats
from core.errors import UnsupportedArchitecture, UnusableModel

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
"""Settings that say how weights are stored or which code runs, not what the model is."""


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
    """Return the settings that say what the model is, by the names that its config's class has for them."""
    names = config_class(config_json).attribute_map
    return {names.get(name, name): with_floats(value) for name, value in config_json.items() if name not in _NOT_READ}


def open_config(settings: Settings) -> PretrainedConfig:
    """Return the config object of settings; raises UnsupportedArchitecture or UnusableModel."""
    named_class = config_class(settings)
    try:
        config = named_class.from_dict(copy.deepcopy(dict(settings)))
    except Exception as error:  # config classes validate with whatever exception their authors chose
        raise UnusableModel(
            f"config.json is refused by the config class of {settings['model_type']}: {str(error)[:300]}", param="model"
        ) from error
    assert isinstance(config, PretrainedConfig)
    return config


def causal_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """Return the class that a config names in `architectures`, transformers' own; raises UnsupportedArchitecture."""
    expected = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    named = [str(each) for each in config.architectures or ()]
    if expected is None or expected not in named:
        shown = ", ".join(repr(each[:100]) for each in named[:5]) or "none"
        wanted = "has no causal language model" if expected is None else f"has {expected}"
        raise UnsupportedArchitecture(
            f"config.json names {shown} in 'architectures'; the type {config.model_type!r} {wanted}", param="model"
        )
    model_class: type[PreTrainedModel] = getattr(transformers, expected)
    return model_class


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """Return the part of a config that describes the decoder: the config itself, or one inside of it."""
    part: PretrainedConfig = config.get_text_config(decoder=True)
    return part


def own_config(config: PretrainedConfig) -> PretrainedConfig:
    """Return the config that the class of a config takes: the config itself, or the text part of a composite one."""
    taken: Any = causal_class(config).config_class
    return config if isinstance(config, taken) else text_config(config)
