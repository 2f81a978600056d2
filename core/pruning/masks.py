"""Which weights go: exact counts of the lowest scores, ties broken by lowest index, alike on CPU and CUDA.

Masks are boolean, True where a weight is removed.
"""

import torch
from torch import Tensor

from core.pruning.group import Target


def lowest(score: Tensor, count: int) -> Tensor:
    """Mask of exactly `count` lowest scores along the last dimension; earlier indices win ties."""
    size = score.shape[-1]
    assert 0 <= count <= size
    if count == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    if count == size:
        return torch.ones_like(score, dtype=torch.bool)
    threshold = score.kthvalue(count, dim=-1, keepdim=True).values
    mask = score <= threshold
    excess = mask.sum(dim=-1, keepdim=True) - count
    if excess.any():
        tied = score == threshold
        room = tied.sum(dim=-1, keepdim=True) - excess
        mask &= ~tied | (tied.cumsum(dim=-1) <= room)
    return mask


def lowest_in_tensor(score_OI: Tensor, count: int) -> Tensor:
    """Mask of the `count` lowest scores of a whole matrix; ties in row-major order."""
    return lowest(score_OI.reshape(-1), count).view_as(score_OI)


def removal_mask(score_OI: Tensor, target: Target, *, by_row: bool) -> Tensor:
    """Mask of a linear layer's weights to remove: by group where the target is n:m, else within rows or the tensor."""
    if target.pattern.keep is not None and target.pattern.of is not None:
        return lowest_in_groups(score_OI, target.pattern.keep, target.pattern.of)
    if by_row:
        return lowest(score_OI, target.of_row(score_OI.shape[1]))
    return lowest_in_tensor(score_OI, target.of_tensor(score_OI.numel()))


def lowest_in_groups(score: Tensor, keep: int, of: int) -> Tensor:
    """Mask for n:m along the last dimension: of every `of` consecutive scores the `of − keep` lowest."""
    groups = score.unflatten(-1, (-1, of))
    index = torch.arange(of, device=score.device)
    rank = torch.zeros(groups.shape, dtype=torch.int16, device=score.device)
    for other in range(of):
        rival = groups[..., other : other + 1]
        rank += (rival < groups) | ((rival == groups) & (other < index))
    return (rank < of - keep).flatten(-2)
