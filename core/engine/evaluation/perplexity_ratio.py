"""Standard error of a ratio of perplexities that two models have on the same windows."""

from collections.abc import Sequence
from math import exp, isfinite, sqrt
from statistics import fmean, stdev
from typing import Final

FEWEST_WINDOWS: Final = 4
"""Fewest windows whose spread says anything."""


def ratio_stderr(dense_losses: Sequence[float], pruned_losses: Sequence[float]) -> float | None:
    """Return the standard error of pruned ÷ dense perplexity from the mean loss of each window (nats), in one order.

    Windows are paired: the logarithm of the ratio is the mean of their differences, all windows having equally many
    tokens, and its standard error s ÷ √n, which the ratio turns into its own. None where the windows are too few, or
    not the same ones.
    """
    if len(dense_losses) != len(pruned_losses) or len(dense_losses) < FEWEST_WINDOWS:
        return None
    differences = [after - before for before, after in zip(dense_losses, pruned_losses, strict=True)]
    mean = fmean(differences)
    if not isfinite(mean) or mean > 700.0:
        return None
    return exp(mean) * stdev(differences) / sqrt(len(differences))
