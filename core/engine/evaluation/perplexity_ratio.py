"""Standard error of the ratio of two models' perplexities on the same windows."""

from collections.abc import Sequence
from math import exp, isfinite, sqrt
from statistics import fmean, stdev
from typing import Final

FEWEST_WINDOWS: Final = 4
"""Fewest windows for a meaningful spread."""


def ratio_stderr(dense_losses: Sequence[float], pruned_losses: Sequence[float]) -> float | None:
    """Return the standard error of pruned ÷ dense perplexity from the mean losses of the same windows, in nats.

    Windows are paired. All have the same number of tokens, so that the logarithm of the ratio is the mean of their
    differences, with the standard error s ÷ √n; times the ratio, it is the result. None where the windows are too few,
    or not the same.
    """
    if len(dense_losses) != len(pruned_losses) or len(dense_losses) < FEWEST_WINDOWS:
        return None
    differences = [after - before for before, after in zip(dense_losses, pruned_losses, strict=True)]
    mean = fmean(differences)
    if not isfinite(mean) or mean > 700.0:
        return None
    return exp(mean) * stdev(differences) / sqrt(len(differences))
