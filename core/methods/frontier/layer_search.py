"""Search for whole layers to drop in place of channels: the number of layers, and the layers themselves."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from core.counting import counting
from core.engine.evaluation.divergence import divergences
from core.engine.pruning.blocks.trial import hidden_states_after_trial
from core.engine.pruning.protocols.units import BlockUnitMethod
from core.engine.pruning.streams.block_gradients import forward_blocks
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.removal import UnitCounts
from core.engine.removals.layers.counts import required_layers
from core.methods.frontier.layer_drop import LayerDrop, find_local_minimum, most_trials
from core.methods.frontier.run_costs import RunCosts
from secateur_wire.errors import InvalidSparsity

_PARTS = 4
"""Smallest number of calibration sequences for trials; also, trials are measured on one sequence in this many at most.
"""

CountsWithout = Callable[[Sequence[int]], UnitCounts]
"""Function from the dropped layers to the counts of the other layers, so that the model reaches its sparsity."""


@dataclass(frozen=True)
class LayerSearch:
    """Search for the layers to drop from a model that `method` prunes; `protected` layers stay.

    Numbers of dropped layers are compared by trials: whole pruned models with equal numbers of parameters. The measure
    is the divergence between the predictions of the trial and of the dense model.
    """

    context: UnitSelectionContext
    method: BlockUnitMethod
    drop: LayerDrop
    protected: frozenset[int]
    counts_without: CountsWithout
    runs: RunCosts

    def cheapest_layers(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return, for each number, that many layers whose runs cost least.

        The other layers are fitted to the dense hidden states after a dropped run. So the cost of a run does not depend
        on the runs before it.
        """
        context = self.context
        required = required_layers(context.folder.description)
        excluded = self.protected | {max(each, key=lambda layer: self.runs.cost(layer, layer + 1)) for each in required}
        return [least_costly(context.layers, number, excluded, self.runs.cost) for number in numbers]

    def best(self, numbers: Sequence[int]) -> UnitCounts:
        """Return the counts of the best model; each of `numbers` is one number of dropped layers to try."""
        context = self.context
        most = context.layers - len(self.protected) - 1
        numbers = [each for each in numbers if each <= most]
        if len(numbers) == 1 or len(self._calibration()) < _PARTS:
            return self.counts_without([])
        fitted_NT, seen_NT = self._fitting_sequences(), self._evaluation_sequences()
        batches = seen_NT.split(context.micro_batch)
        dense = forward_blocks(context.streamed, batches, context.forward_dtype)
        possible = []
        for dropped in self.cheapest_layers(numbers):
            with suppress(InvalidSparsity):
                possible.append((_label(dropped), self.counts_without(dropped)))

        tried: dict[int, float] = {}

        def divergence(place: int) -> float:
            if place not in tried:
                count(len(tried))
                what, counts = possible[place]
                ends = hidden_states_after_trial(context, self.method, counts, fitted_NT, seen_NT)
                (tried[place],) = divergences(context.streamed, batches, dense, [ends])
                context.log(f"trial, {what}: {tried[place]:.4f} nats")
            return tried[place]

        context.begin_trials()
        with counting("trials of whole layers, at most", most_trials(len(possible))) as count:
            what, counts = possible[find_local_minimum(len(possible), divergence)]
        figures = "; ".join(f"{possible[place][0]}: {tried[place]:.4f}" for place in sorted(tried))
        note = (
            "Whole layers against channels, by trials of models of as many parameters, pruned on "
            f"{fitted_NT.numel():,} calibration tokens: divergence from the dense model's predictions on "
            f"{seen_NT.numel():,} others, in nats a token: {figures}. Taken: {what}."
        )
        return counts.model_copy(update={"notes": [*counts.notes, note]})

    def _evaluation_sequences(self) -> Tensor:
        return self._calibration()[self._is_for_evaluation()]

    def _fitting_sequences(self) -> Tensor:
        """Return the sequences that trials are fitted on: evenly spaced among those that trials are not measured on."""
        calibration_NT = self._calibration()
        rest_NT = calibration_NT[~self._is_for_evaluation()]
        sequences, length = rest_NT.shape
        number = min(max(1, self.drop.fitted_tokens(calibration_NT.numel()) // length), sequences)
        return rest_NT[torch.arange(number) * sequences // number]

    def _is_for_evaluation(self) -> Tensor:
        """Return a mask of the calibration sequences to measure trials on: evenly spaced, at most a quarter: [N]."""
        sequences, length = self._calibration().shape
        number = min(max(1, self.drop.seen // length), sequences // _PARTS)
        evaluation_N = torch.zeros(sequences, dtype=torch.bool)
        evaluation_N[torch.arange(number) * sequences // max(1, number)] = True
        return evaluation_N

    def _calibration(self) -> Tensor:
        assert self.context.calibration is not None
        return self.context.calibration


def _label(dropped: Sequence[int]) -> str:
    return f"without layer{'s' if len(dropped) > 1 else ''} {', '.join(map(str, dropped))}" if dropped else "all layers"


def least_costly(layers: int, number: int, excluded: Collection[int], cost: Callable[[int, int], float]) -> list[int]:
    """Return the `number` of `layers` that cost least to drop, ascending, without any of `excluded`.

    Fewer layers are returned where fewer can go. `cost(first, end)` is the cost of the run of layers `first` to `end` −
    1. The sum of the costs of all runs is minimal. Dynamic programming finds it: for the first n layers and every
    number of dropped layers, the best sum is computed from the best sums for fewer layers.
    """
    number = min(number, layers - len(set(excluded)))
    nothing: tuple[int, ...] = ()
    # best[n][k]: least cost of dropping k of the first n layers, and these layers
    best = [[(0.0, nothing)] + [(inf, nothing)] * number]
    for end in range(1, layers + 1):
        row = list(best[end - 1])
        for first in range(end - 1, max(end - number, 0) - 1, -1):
            if first in excluded:
                break
            added = cost(first, end)
            before = best[max(first - 1, 0)]  # the layer before the run stays
            for count in range(end - first, number + 1):
                lost_cost, removed = before[count - (end - first)]
                if lost_cost + added < row[count][0]:
                    row[count] = (lost_cost + added, (*removed, *range(first, end)))
        best.append(row)
    return list(best[layers][number][1])
