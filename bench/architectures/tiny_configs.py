"""Tiny configurations and random models of all causal language models that the installed transformers knows.

A config's defaults are made small by the name of each setting, and of its layers the first of each distinct kind stays.
`tiny.toml` has the sizes, and the settings of types that do not follow from that.
"""

import copy
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeGuard

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

_TINY: Final[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("tiny.toml").read_text("utf-8"))
SIZES: Final[dict[str, int]] = {name: each["size"] for each in _TINY["size"] for name in each["names"]}
TYPES: tuple[str, ...] = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
BATCH, LENGTH = 2, 12
_LEAST_LAYERS = 2
_MOST_LAYERS = 8
_GAIN = 1.5
_NOISE = 0.1
_SPECIAL = {"bos": 1, "eos": 2, "pad": 0, "sep": 3, "cls": 1, "decoder_start": 1, "start": 1}


def tiny_config(model_type: str) -> PretrainedConfig:
    """Return a small config of a type, with every kind of block that its default has."""
    config_class: Callable[..., PretrainedConfig] = CONFIG_MAPPING[model_type]
    default = config_class(**copy.deepcopy(_TINY["at_first"].get(model_type, {})))
    return config_class(**_shrunk(default))


def tiny_model(model_type: str, seed: int) -> PreTrainedModel:
    """Return a random model of the small config, in float32, whose logits are far from uniform."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(tiny_config(model_type), dtype=torch.float32)
    randomise(model, seed)
    model.eval()
    return model


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """Give a model random weights: matrices of a gain above one, and noise on norms, biases and saved buffers."""
    generator = torch.Generator().manual_seed(seed)
    matrices = {id(matrix) for matrix in _matrices(model)}
    for tensor in (*model.parameters(), *_saved_buffers(model)):
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if id(tensor) in matrices:
            tensor.copy_(noise * _GAIN / tensor.shape[-1] ** 0.5)
        elif tensor.ndim > 2:  # stacked experts, convolutions
            tensor.copy_(noise / max(tensor[0].numel() / tensor.shape[1], 1) ** 0.5)
        else:
            tensor.copy_(tensor.nan_to_num(0.0, 0.0, 0.0) + noise * _NOISE)


def tokens_of(config: PretrainedConfig, seed: int, length: int = LENGTH) -> Tensor:
    """Return random tokens, [batch, length]."""
    vocabulary = config.get_text_config(decoder=True).vocab_size
    return torch.randint(4, vocabulary, (BATCH, length), generator=torch.Generator().manual_seed(seed))


def _matrices(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding | Conv1D):
            yield module.weight


def _saved_buffers(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield buffer


def _shrunk(config: PretrainedConfig) -> dict[str, object]:
    """Return the settings of a default config that a small one has otherwise."""
    stored = {each.name: vars(config).get(config.attribute_map.get(each.name, each.name)) for each in fields(config)}
    values = {name: value for name, value in stored.items() if value is not None}
    small: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, PretrainedConfig):
            own_class: Callable[..., PretrainedConfig] = type(value)
            small[name] = own_class(**_shrunk(value))
        elif name in SIZES and _is_number(value):
            small[name] = min(value, SIZES[name])
    if "head_dim" in small and values["head_dim"] == values.get("qk_rope_head_dim"):
        small["head_dim"] = small["qk_rope_head_dim"]
    if "kv_lora_rank" in values and "num_key_value_heads" in small:  # keys and values of all heads come from one latent
        small["num_key_value_heads"] = small["num_attention_heads"]
    if "is_decoder" in values and not values.get("is_encoder_decoder"):
        small["is_decoder"] = True
    return small | _few_layers(config, values) | _special_tokens(values) | _changes(config.model_type)


def _changes(model_type: str) -> dict[str, object]:
    """Return what a type has otherwise; layers are numbers, which TOML has not for keys."""
    changes: dict[str, Any] = copy.deepcopy(_TINY["changes"].get(model_type, {}))
    if apart := changes.get("per_layer_config"):
        changes["per_layer_config"] = {int(layer): each for layer, each in apart.items()}
    return changes


def _few_layers(config: PretrainedConfig, values: Mapping[str, object]) -> dict[str, object]:
    """Return the number of layers and all settings by layer, with the first layer of each kind."""
    counts = [name for name in _TINY["layer_counts"] if _is_number(values.get(name))]
    if not counts:
        return {}
    total = values[counts[0]]
    assert _is_number(total)
    lists = {
        name: value
        for name, value in values.items()
        if isinstance(value, list | tuple) and len(value) == total and name not in _TINY["lists_not_by_layer"]
    }
    apart = {int(layer): changes for layer, changes in config.to_dict().get("per_layer_config", {}).items()}
    kinds: dict[str, int] = {}
    for layer in range(total):
        kinds.setdefault(repr(([value[layer] for value in lists.values()], apart.get(layer))), layer)
    chosen = sorted(kinds.values())[:_MOST_LAYERS]
    chosen += [layer for layer in range(total) if layer not in chosen][: max(_LEAST_LAYERS - len(chosen), 0)]
    chosen.sort()
    small: dict[str, object] = {name: len(chosen) for name in counts}
    small |= {name: [_small(name, value[layer]) for layer in chosen] for name, value in lists.items()}
    if apart:
        small["per_layer_config"] = {
            place: {name: _small(name, value) for name, value in apart[layer].items()}
            for place, layer in enumerate(chosen)
            if layer in apart
        }
    return small


def _small(name: str, value: object) -> object:
    size = SIZES.get(name.removesuffix("_per_layer"))
    return min(value, size) if size is not None and isinstance(value, int) else value


def _special_tokens(values: Mapping[str, object]) -> dict[str, object]:
    """Return the ids of special tokens that are beyond the small vocabulary, within it."""
    small: dict[str, object] = {}
    for name, value in values.items():
        kind, ids, _ = name.partition("_token_i")
        numbers = value if isinstance(value, list) else [value]
        if ids and any(_is_number(each) and each >= SIZES["vocab_size"] for each in numbers):
            small[name] = _SPECIAL.get(kind, SIZES["vocab_size"] - 1 - len(small))
    return small


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
