"""Search for the whole layers that go in place of channels: which a model can best do without, and how many."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from core.engine.evaluation.divergence import divergences
from core.engine.pruning.blocks.trial import ends_after_trial
from core.engine.pruning.protocols.units import BlockUnitMethod
from core.engine.pruning.streams.block_gradients import forward_blocks
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.removal import UnitCounts
from core.engine.removals.layers.counts import required_layers
from core.methods.frontier.layer_drop import LayerDrop, descend
from core.methods.frontier.run_costs import RunCosts
from secateur_wire.errors import InvalidSparsity

_PARTS = 4
"""Least number of calibration sequences of which some can be held out for trials."""

CountsWithout = Callable[[Sequence[int]], UnitCounts]
"""Function of the layers that go whole: the counts with which as many parameters go in all."""


@dataclass(frozen=True)
class LayerSearch:
    """Search in a model whose layers are pruned by `method`; none of those `protected` goes.

    Layers and channels are compared by what is measured of whole pruned models of as many parameters: the divergence of
    their predictions from the dense model's.
    """

    context: UnitSelectionContext
    method: BlockUnitMethod
    drop: LayerDrop
    protected: frozenset[int]
    counts_without: CountsWithout
    runs: RunCosts

    def most_dispensable(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return for each number so many layers, those whose runs cost least.

        What is left is fitted to the dense stream behind them, so that a run costs what is new at its end.
        """
        context = self.context
        required = required_layers(context.folder.description)
        staying = self.protected | {max(each, key=lambda layer: self.runs.cost(layer, layer + 1)) for each in required}
        return [least_costly(context.layers, number, staying, self.runs.cost) for number in numbers]

    def best(self, numbers: Sequence[int]) -> UnitCounts:
        """Return the counts of the best of models of one size, each without another number of layers."""
        context = self.context
        most = context.layers - len(self.protected) - 1
        numbers = [each for each in numbers if each <= most]
        if len(numbers) == 1 or len(self._calibration()) < _PARTS:
            return self.counts_without([])
        fitted_NT, seen_NT = self._fitted(), self._seen()
        batches = seen_NT.split(context.micro_batch)
        dense = forward_blocks(context.streamed, batches, context.forward_dtype)
        possible = []
        for dropped in self.most_dispensable(numbers):
            with suppress(InvalidSparsity):
                possible.append((_without(dropped), self.counts_without(dropped)))

        tried: dict[int, float] = {}

        def lost(place: int) -> float:
            if place not in tried:
                what, counts = possible[place]
                ends = ends_after_trial(context, self.method, counts, fitted_NT, seen_NT)
                (tried[place],) = divergences(context.streamed, batches, dense, [ends])
                context.log(f"trial, {what}: {tried[place]:.4f} nats")
            return tried[place]

        what, counts = possible[descend(len(possible), lost)]
        figures = "; ".join(f"{possible[place][0]}: {tried[place]:.4f}" for place in sorted(tried))
        note = (
            "Whole layers against channels, by trials of models of as many parameters, pruned on "
            f"{fitted_NT.numel():,} calibration tokens: divergence from the dense model's predictions on "
            f"{seen_NT.numel():,} others, in nats a token: {figures}. Taken: {what}."
        )
        return counts.model_copy(update={"notes": [*counts.notes, note]})

    def _seen(self) -> Tensor:
        return self._calibration()[self._is_seen()]

    def _fitted(self) -> Tensor:
        """Return the sequences that trials are fitted to: evenly spaced among the others, of about so many tokens."""
        calibration_NT = self._calibration()
        rest_NT = calibration_NT[~self._is_seen()]
        sequences, length = rest_NT.shape
        number = min(max(1, self.drop.fitted_tokens(calibration_NT.numel()) // length), sequences)
        return rest_NT[torch.arange(number) * sequences // number]

    def _is_seen(self) -> Tensor:
        """Return which calibration sequences trials are measured on: evenly spaced, a quarter of them at most: [N]."""
        sequences, length = self._calibration().shape
        number = min(max(1, self.drop.seen // length), sequences // _PARTS)
        seen_N = torch.zeros(sequences, dtype=torch.bool)
        seen_N[torch.arange(number) * sequences // max(1, number)] = True
        return seen_N

    def _calibration(self) -> Tensor:
        assert self.context.calibration is not None
        return self.context.calibration


def _without(dropped: Sequence[int]) -> str:
    return f"without layer{'s' if len(dropped) > 1 else ''} {', '.join(map(str, dropped))}" if dropped else "all layers"


def least_costly(layers: int, number: int, staying: Collection[int], cost: Callable[[int, int], float]) -> list[int]:
    """Return the `number` of `layers` that can best go whole, none of them `staying`, ascending; fewer where fewer can.

    `cost(first, end)` is that of the run of layers from `first` to before `end`. The sum over the runs that the
    layers make up is the least there is: of those that end at a layer and those before it, the best are known for
    every number, from the first layer on.
    """
    number = min(number, layers - len(set(staying)))
    nothing: tuple[int, ...] = ()
    best = [[(0.0, nothing)] + [(inf, nothing)] * number]  # of so many layers: by the number that goes, sum and layers
    for end in range(1, layers + 1):
        row = list(best[end - 1])
        for first in range(end - 1, max(end - number, 0) - 1, -1):
            if first in staying:
                break
            added = cost(first, end)
            before = best[max(first - 1, 0)]  # the layer before the run stays
            for count in range(end - first, number + 1):
                lost, removed = before[count - (end - first)]
                if lost + added < row[count][0]:
                    row[count] = (lost + added, (*removed, *range(first, end)))
        best.append(row)
    return list(best[layers][number][1])
