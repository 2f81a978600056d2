"""Allocation of the target sparsity: uniform, by outliers (OWL), by a list per layer, or by one global ranking."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from core.engine.architectures.layer_shape import LinearShape


def outlier_share(scores: Iterable[Tensor], ratio: float) -> float:
    """Return the share of a block's scores that exceed `ratio` times their mean.

    OWL (Yin et al. 2023, arXiv:2310.05175, eq. 2). `scores` are |W|·‖X‖ of every prunable linear layer of the block.
    """
    flat = torch.cat([score.reshape(-1) for score in scores])
    return float((flat > ratio * flat.mean()).float().mean())


def owl_sparsities(outlier_shares: Sequence[float], sparsity: float, spread: float) -> list[float]:
    """Return the sparsity of each block: blocks with more outliers get a lower one (OWL).

    The sparsities lie in a band of width 2·spread, and their mean is exactly the target `sparsity`.
    """
    shares = torch.tensor(outlier_shares, dtype=torch.float64)
    width = shares.max() - shares.min()
    if width == 0:
        return [sparsity] * len(outlier_shares)
    densities = (shares - shares.min()) / width * 2 * spread
    return [float(each) for each in sparsity - (densities - densities.mean())]


def global_counts(
    linears: Sequence[LinearShape], read: Callable[[LinearShape], Tensor], sparsity: float
) -> dict[str, int]:
    """Return the number of weights to remove from each tensor in a joint ranking by |w|; ties go to the earliest.

    The exact threshold is found without the model in memory. The bits of a non-negative float32 sort like the float:
    one reading counts the upper 16 bits, and another counts the lower 15 bits within the bin of the threshold.
    """
    total = round(sparsity * sum(linear.numel for linear in linears))
    upper = torch.zeros(2**16, dtype=torch.int64)
    for linear in linears:
        upper += torch.bincount(_bits(read(linear)) >> 15, minlength=2**16)
    before = torch.cat([torch.zeros(1, dtype=torch.int64), upper.cumsum(0)])
    chosen = int(torch.searchsorted(before, total, right=True)) - 1
    if chosen >= 2**16:
        return {linear.name: linear.numel for linear in linears}
    below: dict[str, int] = {}
    within: dict[str, Tensor] = {}
    for linear in linears:
        bits = _bits(read(linear))
        below[linear.name] = int((bits >> 15 < chosen).sum())
        within[linear.name] = torch.bincount(bits[bits >> 15 == chosen] & 0x7FFF, minlength=2**15).to(torch.int32)
    room = total - int(before[chosen])
    lower = torch.stack(list(within.values())).sum(0)
    lower_before = torch.cat([torch.zeros(1, dtype=torch.int64), lower.cumsum(0)])
    threshold = min(int(torch.searchsorted(lower_before, room, right=True)) - 1, 2**15 - 1)
    tied_room = room - int(lower_before[threshold])
    counts = {}
    for linear in linears:
        tied = min(int(within[linear.name][threshold]), tied_room)
        tied_room -= tied
        counts[linear.name] = below[linear.name] + int(within[linear.name][:threshold].sum()) + tied
    return counts


def _bits(weight: Tensor) -> Tensor:
    return weight.abs().float().reshape(-1).view(torch.int32).to(torch.int64)
