"""Models in memory, prepared for training."""

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel


def training_precision(stored: torch.dtype, device: torch.device) -> tuple[Accelerator, torch.dtype]:
    """Return the accelerator to train a model stored in a dtype on a device, and the dtype of its frozen part.

    A 16-bit model on CUDA is run in bfloat16 (autocast), and its frozen part is kept as it is if that is bfloat16.
    """
    is_mixed = device.type == "cuda" and stored is not torch.float32
    frozen_dtype = stored if is_mixed and stored is torch.bfloat16 else torch.float32
    return Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if is_mixed else "no"), frozen_dtype


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Keep only the input of each block, and run the block again in the backward. Later 5.x renamed the method."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
