"""Numbers of whole layers that the structured frontier tries to drop, and the tokens of its trials, by budget."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.removals.layers.counts import most_removable_layers
from core.methods.frontier.own_text import Budget

_ROUNDING = 0.5
"""Tolerance in parameters: the number of parameters to remove comes from a ratio, which is a float."""


@dataclass(frozen=True)
class LayerDrop:
    """Settings of the search for whole layers to drop in place of channels.

    Layers are dropped only if at least `from_share` of the blocks' parameters is removed. The dropped layers make up
    one of `shares` of the removal. Each trial is fitted on the share `fitted` of the calibration tokens, and measured
    on `seen` other tokens.
    """

    from_share: float
    shares: tuple[float, ...]
    fitted: float
    seen: int

    @property
    def most_trials(self) -> int:
        """Largest number of models that are tried."""
        return most_trials(1 + len(self.shares))

    @property
    def weight_reads(self) -> int:
        """Largest number of times that the model's weights are read: by the dense model, and by each trial."""
        return 1 + self.most_trials

    def fitted_tokens(self, calibration: int) -> int:
        """Return the approximate number of tokens that a trial is fitted on."""
        return min(max(round(self.fitted * calibration), 2048), 16384, calibration)

    def numbers(self, description: ModelDescription, sparsity: float) -> list[int]:
        """Return the numbers of dropped layers to try, beginning with 0."""
        most = most_layers(description, sparsity)
        removed = sparsity * description.parameters
        if removed < self.from_share * require_structure(description).parameters or not most:
            return [0]
        worth = _equivalent_layers(description, sparsity)
        return [0, *sorted({min(max(1, round(share * worth)), most) for share in self.shares})]


LAYER_DROP: Final[dict[Budget, LayerDrop]] = {
    "quick": LayerDrop(from_share=0.1, shares=(0.25, 0.5, 0.75, 1.0), fitted=0.125, seen=2048),
    "thorough": LayerDrop(from_share=0.05, shares=(0.15, 0.3, 0.45, 0.6, 0.8, 1.0), fitted=0.25, seen=8192),
}


def find_local_minimum(places: int, value: Callable[[int], float]) -> int:
    """Return the position of a local minimum, which is the global one if the values first fall and then rise.

    The search starts with the two values in the middle and follows the direction in which they fall until they rise.
    """
    place = (places - 1) // 2
    step = 1 if place + 1 < places and value(place + 1) < value(place) else -1
    while 0 <= place + step < places and value(place + step) < value(place):
        place += step
    return place


def most_trials(places: int) -> int:
    """Return the largest number of values that `find_local_minimum` asks for."""
    return min((places - 1) // 2 + 2, places)


def most_layers(description: ModelDescription, sparsity: float) -> int:
    """Return the largest number of whole layers that any choice can drop without exceeding `sparsity` of the model."""
    if "layers" in description.known_as.refused:
        return 0
    largest = sorted((each.parameters for each in require_structure(description).layers), reverse=True)
    left, number = sparsity * description.parameters + _ROUNDING, 0
    while number < most_removable_layers(description) and largest[number] <= left:
        left -= largest[number]
        number += 1
    return number


def _equivalent_layers(description: ModelDescription, sparsity: float) -> float:
    """Return the number of layers of average size that have as many parameters as are removed."""
    return sparsity * description.parameters * description.layers / require_structure(description).parameters
