"""Search for whole layers to drop in place of channels: the number of layers, and the layers themselves."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf

from core.engine.architectures.description import ModelDescription
from core.engine.pruning.units.removal import UnitCounts
from core.engine.removals.layers.counts import required_layers
from core.methods.frontier.run_costs import RunCosts
from core.methods.frontier.trials import ShapeToTry, Trials, label_without
from secateur_wire.errors import InvalidSparsity

CountsWithout = Callable[[Sequence[int]], UnitCounts]
"""Function from the dropped layers to the counts of the other layers, so that the model reaches its sparsity."""


@dataclass(frozen=True)
class LayerSearch:
    """Search for the layers to drop; `protected` layers stay.

    Numbers of dropped layers are compared by `trials`: whole pruned models with equal numbers of parameters.
    """

    trials: Trials
    protected: frozenset[int]
    counts_without: CountsWithout
    runs: RunCosts

    def cheapest_layers(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return, for each number, that many layers whose runs cost least.

        The other layers are fitted to the dense hidden states after a dropped run. So the cost of a run does not depend
        on the runs before it.
        """
        context = self.trials.context
        excluded = self.protected | staying_layers(context.folder.description, self.runs)
        return [least_costly(context.layers, number, excluded, self.runs.cost) for number in numbers]

    def best(self, numbers: Sequence[int]) -> UnitCounts:
        """Return the counts of the best model; each of `numbers` is one number of dropped layers to try."""
        most = self.trials.context.layers - len(self.protected) - 1
        numbers = [each for each in numbers if each <= most]
        if len(numbers) == 1 or not self.trials.are_possible:
            return self.counts_without([])
        candidates = []
        for dropped in self.cheapest_layers(numbers):
            with suppress(InvalidSparsity):
                candidates.append(ShapeToTry(label_without(dropped), self.counts_without(dropped)))
        return self.trials.best(candidates, "as many parameters")


def staying_layers(description: ModelDescription, runs: RunCosts) -> frozenset[int]:
    """Return the layers without which the model cannot run: of each required kind the one that costs most to drop."""
    required = required_layers(description)
    return frozenset(max(each, key=lambda layer: runs.cost(layer, layer + 1)) for each in required)


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
