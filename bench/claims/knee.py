"""Where pruning turns harmful."""

from collections.abc import Sequence


def knee(points: Sequence[tuple[float | str, float]], limit: float) -> float:
    """The largest sparsity up to which no value of (sparsity, value), in order, is above a limit; 0 where the first
    already is.
    """
    reached = 0.0
    for x, value in points:
        if value > limit:
            break
        reached = float(x)
    return reached
