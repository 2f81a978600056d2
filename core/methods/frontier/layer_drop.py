"""Numbers of whole layers that the structured frontier tries to drop, and the tokens it tries them on, by budget."""

from dataclasses import dataclass
from typing import Final

from core.engine.architectures.description import ModelDescription
from core.engine.options.layer_removal import most_removable_layers
from core.engine.options.width_counts import require_structure
from core.methods.frontier.own_text import Budget

_ROUNDING = 0.5
"""Parameters by which a ratio, a float, may be off."""


@dataclass(frozen=True)
class LayerDrop:
    """Search for the layers that go whole, in place of channels.

    `from_share` of the blocks' parameters on it is tried to drop layers, that make up the `shares` of the removal.
    Which ones is found by a forward of about `compared` tokens. Trials are fitted to a `fitted` part of the calibration
    tokens, and measured on `seen` others.
    """

    from_share: float
    shares: tuple[float, ...]
    compared: int
    fitted: float
    seen: int

    @property
    def weight_reads(self) -> int:
        """Times the model's weights are read, at most: to compare layers, by the dense model, and by each trial."""
        return 1 + 1 + (1 + len(self.shares))

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
    "quick": LayerDrop(from_share=0.1, shares=(1 / 3, 2 / 3, 1.0), compared=2048, fitted=0.125, seen=1024),
    "thorough": LayerDrop(
        from_share=0.05, shares=(0.15, 0.3, 0.45, 0.6, 0.8, 1.0), compared=4096, fitted=0.25, seen=2048
    ),
}


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
