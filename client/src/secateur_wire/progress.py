"""Estimated times: their range, the remaining time, and the texts for them."""

import math
from statistics import NormalDist
from typing import Final

BAND: Final = NormalDist().inv_cdf(0.95)
"""Number of deviations on either side of an estimate that contain nine in ten outcomes."""
LEAST_DEVIATION: Final = 0.1
"""Smallest deviation of a time's logarithm, even if all earlier jobs took exactly the formula's time."""

TRUSTED: Final = 0.25
"""Progress from which only the attempt's own pace counts; before, the estimate counts too, less and less."""

LEAST: Final = 0.02
"""Smallest progress for which an attempt has a pace."""


def remaining_seconds(progress: float, elapsed: float, estimated: float | None) -> float | None:
    """Return the remaining seconds of an attempt after `elapsed` seconds with this progress.

    `estimated` is the expected duration. None where it is unknown, as for an attempt that takes longer than expected
    and has too little progress for a pace.
    """
    pace = elapsed / progress if progress >= LEAST else None
    if pace is None:
        return None if estimated is None or estimated <= elapsed else estimated - elapsed
    weight = 1.0 if estimated is None else min(progress / TRUSTED, 1.0)
    total = weight * pace + (1 - weight) * max(estimated or 0.0, elapsed)
    return max(total - elapsed, 0.0)


def seconds_range(estimated: float, deviation: float | None) -> tuple[float, float]:
    """Return the least and the most that an estimated time should take; twice the estimate without a deviation."""
    factor = 1.0 if deviation is None else math.exp(BAND * max(deviation, LEAST_DEVIATION))
    return estimated / factor, estimated * factor


def remaining_range(
    progress: float, elapsed: float, estimated: float | None, deviation: float | None
) -> tuple[float, float] | None:
    """Return the least and the most that an attempt will still take, as in `remaining_seconds`.

    The range becomes narrower as the attempt's own pace replaces the estimate. `deviation` is the standard deviation of
    the estimate's logarithm.
    """
    least, most = (None, None) if estimated is None else seconds_range(estimated, deviation)
    high = remaining_seconds(progress, elapsed, most)
    return None if high is None else (remaining_seconds(progress, elapsed, least) or 0.0, high)


def roughly(seconds: float) -> str:
    """Format an estimated time in the largest unit that fits."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def between(low: float, high: float) -> str:
    """Format the range of an estimated time: "13 to 25 min", or "about 13 min" where both ends have the same text."""
    least, most = roughly(low), roughly(high)
    if least == most:
        return f"about {most}"
    if low < 1:
        return f"up to {most}"
    number, unit = least.split()
    return f"{number if unit == most.split()[1] else least} to {most}"
