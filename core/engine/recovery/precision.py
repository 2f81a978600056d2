"""Models in memory, prepared for training."""

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from core.engine.models.accelerator import backend_of


def training_precision(stored: torch.dtype, device: torch.device) -> tuple[Accelerator, torch.dtype]:
    """Return the accelerator to train a model stored in a dtype on a device, and the dtype of its frozen part.

    Where the device prefers it, a 16-bit model runs in bfloat16 (autocast), and its frozen part stays in bfloat16 if
    stored so.
    """
    backend = backend_of(device)
    is_mixed = backend.kind.prefers_16_bit and stored is not torch.float32
    frozen_dtype = stored if is_mixed and stored is torch.bfloat16 else torch.float32
    return backend.training("bf16" if is_mixed else "no"), frozen_dtype


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Keep only the input of each block, and run the block again in the backward.

    Releases of transformers name the method differently.
    """
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def casts_weights(stored: torch.dtype, device: torch.device, *, learns_from_model: bool) -> bool:
    """Return True if a model whose weights are trained runs in bfloat16 by casts of its weights.

    This holds where a device without its own autocast prefers bfloat16, such as a CPU with matrix units. Autocast would
    also cast activations, back and forth at every layer, which takes a CPU longer than some of the products. A model
    stored in float32 runs so only with a teacher, which runs in the same way.
    """
    backend = backend_of(device)
    return (
        backend.prefers_bfloat16()
        and not backend.kind.prefers_16_bit
        and (learns_from_model or stored is not torch.float32)
    )


class _InBfloat16(nn.Module):
    """Weight cast to bfloat16, whose gradient goes to the stored weight."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.bfloat16()


def cast_weights(model: nn.Module) -> None:
    """Make every parameter read as bfloat16: trained ones stay unchanged and are cast when read."""
    for module, name, parameter in _parameters(model):
        if parameter.requires_grad:
            parametrize.register_parametrization(module, name, _InBfloat16(), unsafe=True)
        else:
            parameter.data = parameter.data.bfloat16()


def uncast_weights(model: nn.Module) -> None:
    """Undo `cast_weights`, so that parameters are read uncast under their earlier names."""
    for module in [each for each in model.modules() if parametrize.is_parametrized(each)]:
        assert isinstance(module.parametrizations, nn.ModuleDict)
        for name in list(module.parametrizations):
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)


def _parameters(model: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    return [(module, name, each) for module in model.modules() for name, each in module.named_parameters(recurse=False)]
