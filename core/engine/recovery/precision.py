"""Models in memory, prepared for training."""

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from core.engine.models.accelerator import backend_of


def training_precision(stored: torch.dtype, device: torch.device) -> tuple[Accelerator, torch.dtype]:
    """Return the accelerator to train a model stored in a dtype on a device, and the dtype of its frozen part.

    Where the device prefers it, a 16-bit model is run in bfloat16 (autocast), and its frozen part is kept as it is if
    that is bfloat16.
    """
    backend = backend_of(device)
    is_mixed = backend.kind.prefers_16_bit and stored is not torch.float32
    frozen_dtype = stored if is_mixed and stored is torch.bfloat16 else torch.float32
    return backend.training("bf16" if is_mixed else "no"), frozen_dtype


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Keep only the input of each block, and run the block again in the backward. Later 5.x renamed the method."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
