"""Search for the whole layers that go in place of channels: which a model can best do without, and how many."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.evaluation.divergence import divergences
from core.engine.pruning.blocks.trial import ends_after_trial
from core.engine.pruning.protocols.units import BlockUnitMethod
from core.engine.pruning.streams.block_gradients import forward_blocks
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.removal import UnitCounts
from core.engine.removals.layers.counts import required_layers
from core.errors import InvalidSparsity
from core.methods.frontier.layer_drop import LayerDrop, descend
from core.methods.frontier.layer_runs import least_costly
from core.methods.frontier.run_costs import RunCosts

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
