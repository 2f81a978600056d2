"""Number of whole layers to remove for a share of a model's parameters."""

import math

from core.engine.architectures.structure import ModelStructure
from core.errors import InvalidSparsity

ROUNDING = 1e-6
"""Parameters that a ratio, a float, may mean too many or too few."""


def layer_count(structure: ModelStructure, *, parameters: int, ratio: float, at_least: bool = False) -> int:
    """Return how many whole layers to remove for the share of parameters nearest to `ratio`, or, `at_least`, no less.

    Raises InvalidSparsity where none, or all, would be removed.
    """
    layers = len(structure.layers)
    each = structure.parameters / layers
    wanted = ratio * parameters
    count = math.ceil((wanted - ROUNDING) / each) if at_least else round(wanted / each)
    if ratio > 0 and not 0 < count < layers:
        least, most = each / parameters, (layers - 1) * each / parameters
        raise InvalidSparsity(
            f"sparsity {ratio:g}: whole layers are {least:.4f} of the model's parameters each, from {least:.4f} up to "
            f"{most:.4f} can be removed",
            param="sparsity",
        )
    return count
