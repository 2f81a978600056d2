"""Models of `from_pretrained` whose layers may have different shapes: built from a config, or loaded with weights.

Where the config gives layers their own settings, each is built from a copy of the config with these settings. The
modelling file that is saved with such weights does the same (`core.engine.architectures.heterogeneous`); here no code
of a folder is executed. Implementations of attention and experts are set here for every model: otherwise the config
could name a kernel of the hub, which would be downloaded and run.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, reduce
from typing import Any, TypedDict

import torch
import transformers
from torch import nn
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.heterogeneous import LAYERS_KEY, channel_features, class_name
from core.engine.models.experts import stored_tensors
from core.engine.models.folder import ModelFolder
from core.engine.models.memory_limit import weights_mapped
from core.engine.models.tensors import DTYPES
from secateur_wire.errors import UnusableModel


def language_config(config: PretrainedConfig, family: Architecture) -> PretrainedConfig:
    """Return the config of a family's language model: its part of a config that describes more, or the whole config."""
    part: PretrainedConfig = reduce(getattr, family.config_path, config)
    return part


class Implementations(TypedDict):
    """Keywords of `from_pretrained` and `_from_config`."""

    attn_implementation: str | dict[str, str]
    experts_implementation: str


def own_implementations(model_class: type[PreTrainedModel], config_path: Sequence[str] = ()) -> Implementations:
    """Return the attention and experts to use: PyTorch's scaled dot product where the class has it; experts one by one.

    Where the class lacks it, attention is its own plain code. With a path to a language model's part, all other parts
    run plain code, which every class has.
    """
    attention = "sdpa" if model_class._supports_sdpa else "eager"
    if not config_path:
        return {"attn_implementation": attention, "experts_implementation": "eager"}
    config_class: Any = model_class.config_class
    by_part = {name: attention if name == config_path[0] else "eager" for name in config_class.sub_configs}
    return {"attn_implementation": {"": attention, **by_part}, "experts_implementation": "eager"}


def build_model(folder: ModelFolder, dtype: torch.dtype) -> PreTrainedModel:
    """Build the model of a folder's config with newly initialised weights, on the current device.

    Raises UnusableModel where the model's class rejects the config.
    """
    model_class = _model_class(folder)
    with _refusals(folder):
        model: PreTrainedModel = model_class._from_config(
            folder.config, dtype=dtype, **own_implementations(model_class, folder.family.config_path)
        )
    return model


def load_model(folder: ModelFolder, device: torch.device, *, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load the model with the folder's weights, by default in their stored dtype.

    Quantised weights are dequantised here, because the library would keep them quantised on some hardware. Generation
    settings are the library's; the folder's are not read. Raises UnusableModel where the model's class rejects the
    config.
    """
    model_class = _model_class(folder)
    weights = None
    if folder.is_quantised:
        weights = stored_tensors(folder.family, {name: folder.read(name) for name in folder.tensors})
        dtype = dtype or DTYPES[folder.description.dtype]
    with _refusals(folder), weights_mapped(folder.path):
        model = model_class.from_pretrained(
            folder.path if weights is None else None,
            state_dict=weights,
            config=copy.deepcopy(folder.config),
            generation_config=GenerationConfig(),
            local_files_only=True,
            dtype=dtype or "auto",
            **own_implementations(model_class, folder.family.config_path),
        )
    opened: PreTrainedModel = model.eval().to(device)
    return opened


@contextmanager
def _refusals(folder: ModelFolder) -> Iterator[None]:
    """Turn the errors that model classes raise for invalid settings into UnusableModel."""
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnusableModel(
            f"config.json of {folder.path.name} is refused by its model class: {str(error)[:300]}", param="model"
        ) from error


def _model_class(folder: ModelFolder) -> Any:
    """Return the class of transformers, or a subclass that builds every layer from its own settings."""
    if getattr(folder.config, LAYERS_KEY, None) is None:
        return getattr(transformers, folder.family.architecture)
    return _per_layer_class(folder.family)


@cache
def _per_layer_class(family: Architecture) -> Any:
    base = getattr(transformers, family.architecture)

    def build(self: Any, config: PretrainedConfig) -> None:
        base.__init__(self, config)
        layers = self.get_submodule(family.blocks)
        for index, settings in enumerate(getattr(config, LAYERS_KEY)):
            if settings and family.has_own_widths:
                _narrow(layers[index], family, settings[family.width_key])
            elif settings:
                layers[index] = type(layers[index])(_with(language_config(self.config, family), settings), index)
        self.post_init()

    return type(class_name(family), (base,), {"__init__": build})


def _narrow(layer: nn.Module, family: Architecture, channels: int) -> None:
    """Resize the linear layers of a block to this number of channels."""
    for name, (is_output, dimension, features) in channel_features(family).items():
        linear = layer.get_submodule(name)
        for attribute in ("out_features", "nf") if is_output else ("in_features", "nx"):
            if hasattr(linear, attribute):
                setattr(linear, attribute, channels * features)
        for attribute in ("weight", "bias") if is_output else ("weight",):
            parameter = getattr(linear, attribute, None)
            if parameter is not None:
                shape = list(parameter.shape)
                shape[dimension if len(shape) > 1 else 0] = channels * features
                setattr(linear, attribute, nn.Parameter(parameter.new_empty(shape)))


def _with(config: PretrainedConfig, settings: dict[str, int]) -> PretrainedConfig:
    own = copy.deepcopy(config)
    for name, value in settings.items():
        setattr(own, name, value)
    own._attn_implementation = config._attn_implementation
    return own
