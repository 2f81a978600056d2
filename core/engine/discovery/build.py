"""Models built for tracing: with the real widths and no weights, or small and with random weights."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

from core.engine.discovery.configuration import causal_class, language_path
from core.engine.models.loading import own_implementations
from secateur_wire.errors import UnsupportedArchitecture

CONSTANT = 0.02
"""Value of all weights of a model that is built without weights."""
_SMALL = 2**16
_SEED = 20


class _LargeOnMeta(TorchFunctionMode):
    """Mode in which large new tensors take no memory, such as weights that a constructor allocates.

    Buffers are computed from values, so that they stay real.
    """

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        named = dict(keywords or {})
        if function in (torch.empty, torch.randn, torch.rand) and named.get("device") is None:
            shape = arguments[0] if arguments and isinstance(arguments[0], list | tuple) else arguments
            sizes = named.get("size", shape)
            if torch.Size(sizes).numel() > _SMALL:
                named["device"] = "meta"
        return function(*arguments, **named)


def build_traceable(config: PretrainedConfig) -> PreTrainedModel:
    """Build the model of a config with real widths and buffers; each parameter is one element, expanded.

    Tied weights are tied. Raises UnsupportedArchitecture where the class cannot be built from the config.
    """
    with _refusals(config), init_empty_weights(include_buffers=False), no_init_weights(), _LargeOnMeta():
        model = _from_config(config)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                expanded = torch.full((), CONSTANT, dtype=_dtype(parameter)).expand(parameter.shape)
                module._parameters[name] = nn.Parameter(expanded, requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = torch.zeros(buffer.shape, dtype=buffer.dtype)
    model.tie_weights()
    model.requires_grad_(False).eval()
    return model


def build_random(config: PretrainedConfig) -> PreTrainedModel:
    """Build the model of a small config with fixed random weights."""
    with _refusals(config), torch.random.fork_rng():
        torch.manual_seed(_SEED)
        model = _from_config(config)
    randomise(model, _SEED)
    model.requires_grad_(False).eval()
    return model


def _from_config(config: PretrainedConfig) -> PreTrainedModel:
    model_class: Any = causal_class(config)
    own = copy.deepcopy(config)
    own.use_cache = False
    model: PreTrainedModel = model_class._from_config(
        own, dtype=torch.float32, **own_implementations(model_class, language_path(config))
    )
    return model


def _dtype(parameter: torch.Tensor) -> torch.dtype:
    return torch.float32 if parameter.is_floating_point() else parameter.dtype


@contextmanager
def _refusals(config: PretrainedConfig) -> Iterator[None]:
    """Turn the errors that model classes raise for settings into UnsupportedArchitecture."""
    try:
        yield
    except UnsupportedArchitecture:
        raise
    except Exception as error:
        raise UnsupportedArchitecture(
            f"{config.model_type}: the model cannot be built from config.json alone: {type(error).__name__}: "
            f"{str(error)[:300]}",
            param="model",
        ) from error


def vocabulary_size(model: PreTrainedModel) -> int:
    """Return the number of tokens that the model's embeddings have."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return weight.shape[0]


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Set a tiny model's weights so that all of it reacts: activations of about one, no row or norm like another."""
    generator = torch.Generator().manual_seed(seed)
    scaled = {
        id(module.weight): module.weight.shape[0 if isinstance(module, Conv1D) else -1]
        for module in model.modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if id(parameter) in scaled:
            parameter.copy_(noise / scaled[id(parameter)] ** 0.5)
        elif parameter.dim() > 1 and float(parameter.abs().mean()) < 0.2:
            parameter.copy_(noise / parameter.shape[-1] ** 0.5)
        else:
            parameter.add_(0.1 * noise)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.weight.normal_(generator=generator)
