"""Masks of the weights to remove: exact counts of the lowest scores, the same on CPU and CUDA.

Masks are boolean, True where a weight is removed. Ties go to the lowest index.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.device_kinds import CPU, device_kind
from core.engine.options.patterns import Pattern


@dataclass(frozen=True)
class LayerTarget:
    """Number of weights to remove from one linear layer: a share `sparsity`, in a pattern.

    `count` overrides that number for the tensor where a ranking over the entire model chose it.
    """

    pattern: Pattern
    sparsity: float
    count: int | None = None

    def of_tensor(self, numel: int) -> int:
        """Return the number of weights to remove from the tensor."""
        return self.count if self.count is not None else round(self.sparsity * numel)

    def keeps_all(self, numel: int) -> bool:
        """Return True where no weight of the tensor is to be removed."""
        return self.pattern.of is None and self.of_tensor(numel) == 0

    def of_row(self, in_features: int) -> int:
        """Return the number of weights to remove from every output row."""
        return round(self.sparsity * in_features)


def lowest(score: Tensor, count: int) -> Tensor:
    """Return the mask of exactly `count` lowest scores along the last dimension; earlier indices win ties."""
    size = score.shape[-1]
    assert 0 <= count <= size
    if count == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    if count == size:
        return torch.ones_like(score, dtype=torch.bool)
    threshold = _kth_lowest(score, count)
    mask = score <= threshold
    excess = mask.sum(dim=-1, keepdim=True) - count
    # waiting for such a device takes longer than breaking ties where there are none
    waits = device_kind(score.device.type).has_own_memory
    if waits or excess.any():
        tied = score == threshold
        room = tied.sum(dim=-1, keepdim=True) - excess
        counts = torch.int32 if size < 2**31 else torch.int64  # no other tensor here is as large as these counts
        mask &= ~tied | (tied.cumsum(dim=-1, dtype=counts) <= room)
    return mask


def _kth_lowest(score: Tensor, count: int) -> Tensor:
    """Return the `count`-th lowest score along the last dimension, which stays with size 1.

    On a CPU numpy's partition gives the same value in a tenth of the time of torch's.
    """
    if score.device.type == CPU.name:
        return torch.from_numpy(np.partition(score.numpy(), count - 1)[..., count - 1 : count])
    return score.kthvalue(count, dim=-1, keepdim=True).values


def lowest_in_tensor(score_OI: Tensor, count: int) -> Tensor:
    """Return the mask of the `count` lowest scores of a matrix; ties in row-major order."""
    return lowest(score_OI.reshape(-1), count).view_as(score_OI)


def removal_mask(score_OI: Tensor, target: LayerTarget, *, by_row: bool) -> Tensor:
    """Return the mask of a linear layer's weights to remove: by n:m groups, or else within rows or the tensor."""
    if target.pattern.keep is not None and target.pattern.of is not None:
        return lowest_in_groups(score_OI, target.pattern.keep, target.pattern.of)
    if by_row:
        return lowest(score_OI, target.of_row(score_OI.shape[1]))
    return lowest_in_tensor(score_OI, target.of_tensor(score_OI.numel()))


def lowest_in_groups(score: Tensor, keep: int, of: int) -> Tensor:
    """Return the n:m mask along the last dimension: the `of − keep` lowest of every `of` consecutive scores."""
    places = [place.contiguous() for place in score.unflatten(-1, (-1, of)).unbind(-1)]
    ranks = [torch.zeros(place.shape, dtype=torch.int8, device=score.device) for place in places]
    for later in range(of):
        for earlier in range(later):
            is_lower = places[later] < places[earlier]
            ranks[earlier] += is_lower
            ranks[later] += ~is_lower
    return torch.stack([rank < of - keep for rank in ranks], dim=-1).flatten(-2)
