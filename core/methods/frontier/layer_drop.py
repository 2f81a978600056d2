"""Numbers of whole layers that the structured frontier tries to drop, and the tokens it tries them on, by budget."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.removals.layers.counts import most_removable_layers
from core.methods.frontier.own_text import Budget

_ROUNDING = 0.5
"""Parameters by which a ratio, a float, may be off."""


@dataclass(frozen=True)
class LayerDrop:
    """Search for the layers that go whole, in place of channels.

    `from_share` of the blocks' parameters on it is tried to drop layers, that make up the `shares` of the removal.
    Trials are fitted to a `fitted` part of the calibration tokens, and measured on `seen` others.
    """

    from_share: float
    shares: tuple[float, ...]
    fitted: float
    seen: int

    @property
    def most_trials(self) -> int:
        """Models that are tried, at most."""
        return most_trials(1 + len(self.shares))

    @property
    def weight_reads(self) -> int:
        """Times the model's weights are read, at most: by the dense model, and by each trial."""
        return 1 + self.most_trials

    def fitted_tokens(self, calibration: int) -> int:
        """Return the tokens that trials are fitted to, about."""
        return min(max(round(self.fitted * calibration), 4096), 16384, calibration)

    def numbers(self, description: ModelDescription, sparsity: float) -> list[int]:
        """Return the numbers of layers that are tried, none the first."""
        most = most_layers(description, sparsity)
        removed = sparsity * description.parameters
        if removed < self.from_share * require_structure(description).parameters or not most:
            return [0]
        worth = _worth(description, sparsity)
        return [0, *sorted({min(max(1, round(share * worth)), most) for share in self.shares})]


LAYER_DROP: Final[dict[Budget, LayerDrop]] = {
    "quick": LayerDrop(from_share=0.1, shares=(0.25, 0.5, 0.75, 1.0), fitted=0.125, seen=4096),
    "thorough": LayerDrop(from_share=0.05, shares=(0.15, 0.3, 0.45, 0.6, 0.8, 1.0), fitted=0.25, seen=8192),
}


def descend(places: int, value: Callable[[int], float]) -> int:
    """Return the place of a value that no other beside it is below: the least of all, where values fall and then rise.

    From the two in the middle on values are asked for in the direction in which they fall, until they rise.
    """
    place = (places - 1) // 2
    step = 1 if place + 1 < places and value(place + 1) < value(place) else -1
    while 0 <= place + step < places and value(place + step) < value(place):
        place += step
    return place


def most_trials(places: int) -> int:
    """Return how many of so many values `descend` asks for, at most."""
    return min((places - 1) // 2 + 2, places)


def most_layers(description: ModelDescription, sparsity: float) -> int:
    """Return the most layers that can go whole where `sparsity` of the model does, whichever they are."""
    if "layers" in description.known_as.refused:
        return 0
    largest = sorted((each.parameters for each in require_structure(description).layers), reverse=True)
    left, number = sparsity * description.parameters + _ROUNDING, 0
    while number < most_removable_layers(description) and largest[number] <= left:
        left -= largest[number]
        number += 1
    return number


def _worth(description: ModelDescription, sparsity: float) -> float:
    """Return the layers that have as many parameters as go."""
    return sparsity * description.parameters * description.layers / require_structure(description).parameters
