"""Saliency scores of weights, [out_features, in_features]; the weights of highest score are kept."""

import torch
from torch import Tensor


def magnitude(weight_OI: Tensor) -> Tensor:
    """Return |W_ij|."""
    return weight_OI.abs()


def weight_times_norm(weight_OI: Tensor, norms_I: Tensor) -> Tensor:
    """Return |W_ij|·‖X_j‖₂ (Wanda, eq. 1)."""
    return weight_OI.abs() * norms_I


def random(weight_OI: Tensor, seed: int) -> Tensor:
    """Draw scores uniformly from [0, 1), the same for a seed on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(weight_OI.shape, generator=generator).to(weight_OI.device)


def cumulative_row_share(score_OI: Tensor) -> Tensor:
    """Return the share of its row's total score that each weight and all lower ones hold together.

    Wanda's variant keeps, in every row, the weights above a threshold α on this share, and bisects α until the tensor's
    sparsity is met. The k lowest shares of the tensor give exactly that threshold.
    """
    ordered_OI, order_OI = score_OI.sort(dim=1, stable=True)
    cumulative_OI = ordered_OI.cumsum(dim=1, dtype=torch.float64)
    total_O1 = cumulative_OI[:, -1:].clamp(min=torch.finfo(torch.float64).tiny)
    return torch.empty_like(cumulative_OI).scatter_(1, order_OI, cumulative_OI / total_O1)
