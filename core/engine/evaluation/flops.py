"""Floating-point operations of one image."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def count_flops(model: nn.Module, image_shape: Sequence[int]) -> int:
    """Return the floating-point operations of a classifier for one image of (channels, height, width).

    Each multiply-add of convolutions, linear layers and attention counts as two; norms, activations and biases count as
    none.
    """
    image_1CHW = torch.zeros(1, *image_shape, device=next(model.parameters()).device)
    counter = FlopCounterMode(display=False)
    # attention in one fused operation is not counted on every device
    with sdpa_kernel(SDPBackend.MATH), counter:
        model(pixel_values=image_1CHW)
    return int(counter.get_total_flops())
