"""Rise of the loss with the share of one group removed, all others intact (Li 2016, section 3.2)."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from core.counting import counted
from core.engine.datasets.image_set import ImageSet
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from core.engine.pruning.network import Network, mean_loss

_RATES = tuple(tenth / 10 for tenth in range(1, 10))


@dataclass(frozen=True)
class Curve:
    """Mean losses, in nats, of a group at ascending rates, the first 0 and the last all units but one."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    def increase(self, rate: float) -> float:
        """Return the rise of the loss at a rate, interpolated linearly between those measured, and never falling."""
        rises = list(accumulate((loss - self.losses[0] for loss in self.losses), max))
        after = min(bisect.bisect_left(self.rates, rate), len(self.rates) - 1)
        if after == 0:
            return rises[0]
        low, high = self.rates[after - 1], self.rates[after]
        share = min(1.0, (rate - low) / (high - low))
        return rises[after - 1] + share * (rises[after] - rises[after - 1])


@torch.no_grad()
def curves(network: Network, groups: CoupledChannels, scores: Sequence[Tensor], images: ImageSet) -> list[Curve]:
    """Measure the curve of each group, with the units of lowest score zeroed first."""
    dense = mean_loss(network, images)
    scanned = []
    for place, (group, score_U) in enumerate(counted(list(zip(groups.groups, scores, strict=True)), "scanning groups")):
        order = torch.argsort(score_U, stable=True).tolist()
        removed = sorted({*(int(rate * group.units) for rate in _RATES), group.units - 1} - {0})
        losses = []
        for count in removed:
            with groups.silenced({place: order[:count]}):
                losses.append(mean_loss(network, images))
        rates = [count / group.units for count in removed]
        scanned.append(Curve((0.0, *rates), (dense, *losses)))
        network.progress.log(f"sensitivity of {group.name}: loss {dense:.4f} to {losses[-1]:.4f}")
    return scanned
