"""Rankings of units over coupled channels, by the criteria of Molchanov (2016, arXiv:1611.06440, section 2).

A unit's feature map z is the input of the layers that read it: after batch-norm and activation, and on every branch of
a residual connection. Each unit has a gate g that multiplies z for all of them: ∂C/∂g is Σ z·∂C/∂z over the places and
channels of the map, and g = 0 is the network without the unit.

All rankings have one signature; scores are [units] for each group, higher is kept. They are not normalised.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from core.counting import counted
from core.engine.datasets.image_set import ImageSet
from core.engine.pruning.filters.channel_slices import Group
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from core.engine.pruning.network import Network, mean_loss

Dropped = Mapping[str, Tensor]
"""Inputs of layers that no longer count, by the layer's name."""

_EXACT_CLASSES = 32
"""Number of classes up to which the expectation over a label is a sum; above it, as many labels are drawn."""


class FilterCriterion(Protocol):
    def __call__(self, network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]: ...


def taylor(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return |1/M Σ_m z_m·∂C/∂z_m| averaged over images (section 2.2); M is the size of the map.

    The absolute value is taken for each image.
    """
    totals = _zeros(network, groups)
    for pixels_BCHW, labels_B in network.batches(images):
        for total_U, gradient_BU in zip(totals, _of_loss(network, groups, pixels_BCHW, labels_B), strict=True):
            total_U += gradient_BU.abs().sum(dim=0)
    return [
        total_U / len(images) / _map_size(groups, group)
        for total_U, group in zip(totals, groups.groups, strict=True)
    ]  # fmt: skip


def obd(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return ½·h, h = ∂²C/∂g² by Gauss–Newton: LeCun's (1989) estimate of the loss of deleting a gate of 1.

    For cross-entropy JᵀH_zJ is the expected squared gradient of a label's log-probability, with the label drawn from
    the model's own prediction: a sum over all labels, or, with more than 32 classes, over 32 drawn labels.
    """
    totals = _zeros(network, groups)
    generator = torch.Generator().manual_seed(seed)
    for pixels_BCHW, _ in network.batches(images):
        add_expected_squares(totals, network, groups, pixels_BCHW, partial(_expected_labels, generator=generator))
    return [total_U / len(images) for total_U in totals]


def add_expected_squares(
    totals: Sequence[Tensor],
    network: Network,
    groups: CoupledChannels,
    pixels_BCHW: Tensor,
    expected: Callable[[Tensor], Sequence[tuple[Tensor, Tensor]]],
) -> None:
    """Add half the expected squares of the gradients of labels' log-probabilities in the gates, summed over a batch.

    `expected` maps all log-probabilities to labels [batch, 1] with weights [batch]. The forward's tensors stay in
    memory until the end of the call.
    """
    gates = _open_gates(network, groups, len(pixels_BCHW))
    with groups.gated(gates):
        logarithms_BK = network.logits(pixels_BCHW).log_softmax(dim=-1)
    for labels_B1, weights_B in expected(logarithms_BK.detach()):
        chosen = logarithms_BK.gather(1, labels_B1).sum()
        gradients = torch.autograd.grad(chosen, gates, retain_graph=True)
        for total_U, gradient_BU in zip(totals, gradients, strict=True):
            total_U += (gradient_BU.square() * weights_B[:, None]).sum(dim=0) / 2


def _of_loss(network: Network, groups: CoupledChannels, pixels_BCHW: Tensor, labels_B: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of a batch's summed loss in the gates of each group, [batch, units]."""
    gates = _open_gates(network, groups, len(labels_B))
    with groups.gated(gates):
        loss = nn.functional.cross_entropy(network.logits(pixels_BCHW), labels_B, reduction="sum")
    return torch.autograd.grad(loss, gates)


def _expected_labels(logarithms_BK: Tensor, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Return labels [batch, 1] with weights [batch]; their weighted sum is the expectation over the prediction."""
    probabilities_BK = logarithms_BK.exp()
    images, classes = probabilities_BK.shape
    if classes <= _EXACT_CLASSES:
        return [
            (torch.full((images, 1), label, device=probabilities_BK.device), probabilities_BK[:, label])
            for label in range(classes)
        ]
    drawn_BL = torch.multinomial(probabilities_BK.cpu(), _EXACT_CLASSES, replacement=True, generator=generator)
    weights_B = probabilities_BK.new_full((images,), 1 / _EXACT_CLASSES)
    return [(drawn_B1.to(probabilities_BK.device), weights_B) for drawn_B1 in drawn_BL.split(1, dim=1)]


@torch.no_grad()
def oracle(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return |ΔC|, the change of the loss without each unit (section 2.2, oracle-abs)."""
    dense = mean_loss(network, images)
    scores = []
    for place, group in enumerate(groups.groups):
        changes = []
        for unit in counted(range(group.units), f"measuring the model without each unit of {group.name}"):
            with groups.silenced({place: [unit]}):
                changes.append(abs(mean_loss(network, images) - dense))
        scores.append(torch.tensor(changes, dtype=torch.float64))
    return scores


@torch.no_grad()
def activation(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return mean |z| over images, places and readers: the mean activation for maps after a rectifier."""
    totals = _zeros(network, groups)

    def see(readers: int, total_U: Tensor, channels_UK: Tensor, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        size_C = inputs[0].abs().movedim(1 if isinstance(layer, nn.Conv2d) else -1, -1)
        mean_C = size_C.flatten(1, -2).mean(dim=1).sum(dim=0) if size_C.dim() > 2 else size_C.sum(dim=0)
        total_U += mean_C[channels_UK].mean(dim=1) / readers

    hooks = [
        network.module(member.name).register_forward_pre_hook(
            partial(see, len(group.readers), total_U, member.channels_UK)
        )
        for group, total_U in zip(groups.groups, totals, strict=True)
        for member in group.readers
    ]
    for pixels_BCHW, _ in network.batches(images):
        network.logits(pixels_BCHW)
    for hook in hooks:
        hook.remove()
    return [total_U / len(images) for total_U in totals]


def minimum_weight(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return 1/|w| Σ w² over the kernels that produce the map."""
    return [kernel_sums(network.model, group, power=2) / _kernel_size(network.model, group) for group in groups.groups]


def random(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Draw scores uniformly from [0, 1), the same for a seed on every device."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(group.units, generator=generator, dtype=torch.float64) for group in groups.groups]


RANKINGS: dict[str, FilterCriterion] = {
    "taylor": taylor,
    "obd": obd,
    "activation": activation,
    "minimum_weight": minimum_weight,
    "random": random,
    "oracle": oracle,
}
_COMPARABLE = ("random", "oracle")
"""Rankings whose scores are comparable between layers without normalisation."""


def rank(name: str, network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return the scores of a ranking, comparable between layers: float64, on the CPU.

    Each layer's scores are divided by their L2 norm (section 2.2), except the oracle's and random ones.
    """
    scores = [each.detach().cpu().double() for each in RANKINGS[name](network, groups, images, seed)]
    return scores if name in _COMPARABLE else [each / (each.norm() or 1.0) for each in scores]


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


def _kernel_size(model: nn.Module, group: Group) -> int:
    return sum(
        model.get_parameter(f"{member.name}.weight")[0].numel() * member.channels_UK.shape[1]
        for member in group.leaders
    )


def _map_size(groups: CoupledChannels, group: Group) -> int:
    """Return places times channels of a unit's feature map, in the output of the layer that writes it."""
    leader = group.leaders[0]
    return groups.positions[leader.name] * leader.channels_UK.shape[1]


def _open_gates(network: Network, groups: CoupledChannels, images: int) -> list[Tensor]:
    return [
        torch.ones(images, group.units, device=network.device, requires_grad=True) for group in groups.groups
    ]  # fmt: skip


def _zeros(network: Network, groups: CoupledChannels) -> list[Tensor]:
    return [torch.zeros(group.units, dtype=torch.float64, device=network.device) for group in groups.groups]


def spearman(first_N: Tensor, second_N: Tensor) -> float:
    """Return Spearman's rank correlation, ties sharing their mean rank; 0 where one series is constant."""
    ranks_2N = torch.stack([_ranks(first_N), _ranks(second_N)])
    centred_2N = ranks_2N - ranks_2N.mean(dim=1, keepdim=True)
    norm = float(centred_2N.norm(dim=1).prod())
    return float(centred_2N.prod(dim=0).sum()) / norm if norm else 0.0


def _ranks(values_N: Tensor) -> Tensor:
    _, place_N, count_V = torch.unique(values_N, return_inverse=True, return_counts=True)
    mean_rank_V: Tensor = count_V.cumsum(0) - (count_V.double() - 1) / 2
    return mean_rank_V[place_N]


def compare(scores: Mapping[str, list[Tensor]]) -> dict[str, dict[str, float]]:
    """Return the correlation of every ranking with the oracle (Spearman; Molchanov 2016, section 3).

    "all" is over the units of all layers, "per_layer" the mean of each layer's own correlation.
    """
    truth = scores["oracle"]
    return {
        name: {
            "all": spearman(torch.cat(each), torch.cat(truth)),
            "per_layer": sum(spearman(*pair) for pair in zip(each, truth, strict=True)) / len(truth),
        }
        for name, each in scores.items()
        if name != "oracle"
    }
