"""Allocation of the target sparsity to layers: by the Fisher information, by outliers, or by one global ranking.

Rates by the Fisher information of a few calibration sequences follow Optimal Brain Damage (LeCun, Denker & Solla 1989,
eq. 5), which expects the loss to rise by ½·h·w² when a weight w is removed. Here h is the diagonal of the empirical
Fisher information, Σ_n g_no²·x_ni² over tokens n, for a layer's input x and the gradient g of the loss in its output. A
layer's weights are removed in the order of |w|·‖x‖ (as in Wanda). The expected rise over the rate is the layer's curve.
The curves of all layers give the rates at which the next weight costs the same in every layer. Only a sample of every
layer's rows is used, and no gradient of a weight is computed.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.structure import LinearShape
from core.engine.datasets.counted_tokens import rows_at
from core.engine.models.hooks import removed_after
from core.engine.models.tensors import to_out_in
from core.engine.options.sensitivity import LayerCosts, allocate
from core.engine.pruning.streams.block_gradients import backward_blocks
from core.engine.pruning.streams.stream import Stream
from secateur_wire.errors import RunFailed

_ROWS = 64
"""Approximate number of a layer's sampled rows, evenly spaced."""
_RATES = 20
"""Number of rates on a curve."""
_HIGHEST_RATE = 0.95


class _SquareSums:
    """Squares of one linear layer's inputs and of its outputs' gradients, accumulated over forwards and backwards.

    Each sequence goes forward and backward alone. Inputs are those at its places that count, in this order.
    """

    def __init__(
        self, shape: LinearShape, module: nn.Module, family: Architecture, places: Iterable[Tensor | None]
    ) -> None:
        self._places = iter(places)
        self.shape = shape
        self.module = module
        self.family = family
        self.stride = max(1, shape.out_features // _ROWS)
        self.squares_I: Tensor | None = None
        self.fisher_RI: Tensor | None = None

    def hook(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        """Accumulate squares once the output's gradient arrives; a forward hook, idle in forwards without gradients."""
        if not output.requires_grad:
            return
        squares_NI = arguments[0].detach().reshape(-1, self.shape.in_features).float().square()

        def record(gradient: Tensor) -> None:
            squares_I = rows_at(squares_NI, next(self._places)).sum(dim=0)
            rows_NR = gradient.reshape(-1, self.shape.out_features)[:, :: self.stride].float().square()
            fisher_RI = rows_NR.T @ squares_NI
            self.squares_I = squares_I if self.squares_I is None else self.squares_I + squares_I
            self.fisher_RI = fisher_RI if self.fisher_RI is None else self.fisher_RI + fisher_RI

        output.register_hook(record)

    def increases(self, highest: float) -> Tensor:
        """Return the increase of the loss at rates up to `highest`, then with all weights removed, on the device.

        The block's weights must be loaded.
        """
        assert self.squares_I is not None and self.fisher_RI is not None
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        squares_RI = to_out_in(weight, self.family)[:: self.stride].detach().float().square()
        order = (squares_RI * self.squares_I).flatten().argsort()
        costs = (squares_RI * self.fisher_RI).flatten()[order].cumsum(dim=0, dtype=torch.float64)
        places = [max(0, round(rate * len(costs)) - 1) for rate in _rates(highest)]
        self.squares_I = self.fisher_RI = None
        return costs[torch.tensor([*places, len(costs) - 1])]

    def curve(self, increases: Sequence[float], highest: float) -> LayerCosts:
        """Return the curve from the values of `increases`; raises RunFailed where it is not finite."""
        *read, total = increases
        if not math.isfinite(total):
            raise RunFailed(
                f"{self.shape.name}: its inputs or gradients are infinite or not a number, so no rate can be chosen"
            )
        scale = self.shape.out_features / len(range(0, self.shape.out_features, self.stride))
        return LayerCosts(self.shape.name, self.shape.numel, _rates(highest), [scale * cost for cost in read])


def _rates(highest: float) -> list[float]:
    return [highest * step / _RATES for step in range(1, _RATES + 1)]


def fisher_rates(stream: Stream, linears: Sequence[LinearShape], sparsity: float) -> dict[str, float]:
    """Return the share of each linear layer's weights to remove, by name; over all layers it is `sparsity`.

    `stream` keeps all hidden states of its tokens, one sequence at a time. `linears` are linear layers of its blocks,
    which run forward and backward one after the other. No layer loses more than 95 %, or (1 + sparsity)/2 where that
    is more. Raises RunFailed where gradients are not finite.
    """
    streamed = stream.streamed
    highest = max(_HIGHEST_RATE, (1 + sparsity) / 2)
    by_block: dict[int, list[_SquareSums]] = {}
    for shape in linears:
        module = streamed.blocks[shape.layer].get_submodule(
            shape.name.removeprefix(f"{streamed.block_prefix(shape.layer)}.")
        )
        sums = _SquareSums(shape, module, streamed.folder.family, stream.places)
        by_block.setdefault(shape.layer, []).append(sums)
    costs: dict[str, LayerCosts] = {}

    def on_block(index: int, *unused: Mapping[str, Tensor]) -> None:
        if all_sums := by_block.get(index):
            # One wait for the device.
            read = torch.stack([sums.increases(highest) for sums in all_sums]).tolist()
            costs.update({each.shape.name: each.curve(own, highest) for each, own in zip(all_sums, read, strict=True)})

    all_sums = [sums for block in by_block.values() for sums in block]
    with removed_after(sums.module.register_forward_hook(sums.hook) for sums in all_sums):
        backward_blocks(stream, [()] * len(streamed), on_block)
    rates = allocate([costs[shape.name] for shape in linears], sparsity)
    return {shape.name: rate for shape, rate in zip(linears, rates, strict=True)}


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
