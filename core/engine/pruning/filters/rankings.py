"""Scores of filters over coupled channels: by the Taylor criterion of Molchanov, and by the norms of their kernels.

Molchanov (2016, arXiv:1611.06440, section 2.2): a unit's feature map z is the input of the layers that read it, after
batch-norm and activation, and on every branch of a residual connection. Each unit has a gate g that multiplies z for
all of them: ∂C/∂g is Σ z·∂C/∂z over the places and channels of the map, and g = 0 is the network without the unit.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from core.engine.datasets.image_set import ImageSet
from core.engine.pruning.filters.channel_slices import Group
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from core.engine.pruning.network import Network

Dropped = Mapping[str, Tensor]
"""Inputs of layers that no longer count, by the layer's name."""


def taylor(network: Network, groups: CoupledChannels, images: ImageSet) -> list[Tensor]:
    """Return |1/M Σ_m z_m·∂C/∂z_m| averaged over images, [units] for each group; M is the size of the map.

    The absolute value is taken for each image. Higher is kept; the scores are not normalised.
    """
    totals = [torch.zeros(group.units, dtype=torch.float64, device=network.device) for group in groups.groups]
    for pixels_BCHW, labels_B in network.batches(images):
        gates = open_gates(network, groups, len(labels_B))
        with groups.gated(gates):
            loss = nn.functional.cross_entropy(network.logits(pixels_BCHW), labels_B, reduction="sum")
        for total_U, gradient_BU in zip(totals, torch.autograd.grad(loss, gates), strict=True):
            total_U += gradient_BU.abs().sum(dim=0)
    return [
        total_U / len(images) / _map_size(groups, group)
        for total_U, group in zip(totals, groups.groups, strict=True)
    ]  # fmt: skip


def open_gates(network: Network, groups: CoupledChannels, images: int) -> list[Tensor]:
    """Return a gate of 1 for each unit of each image, [images, units] for each group."""
    return [torch.ones(images, group.units, device=network.device, requires_grad=True) for group in groups.groups]


def between_layers(scores: Sequence[Tensor]) -> list[Tensor]:
    """Return scores comparable between layers, divided by their L2 norm in each (section 2.2): float64, on the CPU."""
    on_cpu = [each.detach().cpu().double() for each in scores]
    return [each / (each.norm() or 1.0) for each in on_cpu]


@torch.no_grad()
def kernel_sums(model: nn.Module, group: Group, *, power: int, dropped: Dropped | None = None) -> Tensor:
    """Return the sum of |w|^power over the kernels of each unit's filters in the group's leading layers, [units].

    With power 1 this is the filter score of Li (2016, arXiv:1608.08710, section 3.1). Kernels of `dropped` inputs do
    not count.
    """
    total_U = torch.zeros(group.units, dtype=torch.float64)
    for member in group.leaders:
        weight = model.get_parameter(f"{member.name}.weight")
        size_OI = weight.double().abs().pow(power).reshape(*weight.shape[:2], -1).sum(dim=2)
        if dropped and member.name in dropped:
            size_OI = size_OI.index_fill(1, dropped[member.name].to(size_OI.device), 0.0)
        total_U += size_OI.sum(dim=1).cpu()[member.channels_UK].sum(dim=1)
    return total_U


def _map_size(groups: CoupledChannels, group: Group) -> int:
    """Return places times channels of a unit's feature map, in the output of the layer that writes it."""
    leader = group.leaders[0]
    return groups.positions[leader.name] * leader.channels_UK.shape[1]
