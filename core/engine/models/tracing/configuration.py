"""Configs of discovery: made from JSON by transformers' own classes, and shortened to few layers."""

import copy
import re
from collections.abc import Mapping
from typing import Any

import transformers
from pydantic import JsonValue
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from core.errors import UnsupportedArchitecture, UnusableModel

_NOT_READ = (
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
_COUNTS_LAYERS = re.compile("layer|block|depth|hidden_num")


def open_config(config_json: Mapping[str, JsonValue]) -> PretrainedConfig:
    """Return the config object of a config.json; raises UnsupportedArchitecture or UnusableModel."""
    model_type = config_json.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise UnsupportedArchitecture(
            f"config.json says model_type {str(model_type)[:100]!r}, which transformers {transformers.__version__} "
            "does not know",
            param="model",
        )
    settings = {name: value for name, value in config_json.items() if name not in _NOT_READ}
    try:
        config = CONFIG_MAPPING[model_type].from_dict(copy.deepcopy(settings))
    except Exception as error:  # config classes validate with whatever exception their authors chose
        raise UnusableModel(
            f"config.json is refused by the config class of {model_type}: {str(error)[:300]}", param="model"
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
    found: type[PreTrainedModel] = getattr(transformers, expected)
    return found


def own_config(config: PretrainedConfig) -> PretrainedConfig:
    """Return the config that the class of a config takes: the config itself, or the text part of a composite one."""
    return config if isinstance(config, causal_class(config).config_class) else text_config(config)


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """Return the part of a config that describes the decoder: the config itself, or one inside of it."""
    found: PretrainedConfig = config.get_text_config(decoder=True)
    return found


def layer_lists(config: PretrainedConfig, layers: int) -> dict[str, list[Any]]:
    """Return the config's lists with an entry for each of so many layers."""
    return {
        name: list(value)
        for name, value in vars(text_config(config)).items()
        if not name.startswith("_") and isinstance(value, list | tuple) and len(value) == layers
    }


def shortened(config: PretrainedConfig, layers: int, kept: int) -> PretrainedConfig:
    """Return the config of the first `kept` of `layers` layers: counts of layers and lists by layer are cut alike."""
    short = copy.deepcopy(config)
    own = text_config(short)
    for name, value in layer_lists(short, layers).items():
        setattr(own, name, value[:kept])
    for name, value in list(vars(own).items()):
        if type(value) is int and value == layers and _COUNTS_LAYERS.search(name):
            setattr(own, name, kept)
    return short
