"""Estimated times: their range, and the texts for them."""

import math
from statistics import NormalDist
from typing import Final

BAND: Final = NormalDist().inv_cdf(0.95)
"""Number of deviations on either side of an estimate that contain nine in ten outcomes."""
LEAST_DEVIATION: Final = 0.1
"""Smallest deviation of a time's logarithm, even if all earlier jobs took exactly the formula's time."""

MOST_FACTOR: Final = 20.0
"""Largest factor between the ends of a band; a wider one says too little to be a known figure."""


def seconds_range(estimated: float, deviation: float | None) -> tuple[float, float]:
    """Return the least and the most that an estimated time should take; twice the estimate without a deviation."""
    factor = 1.0 if deviation is None else math.exp(BAND * max(deviation, LEAST_DEVIATION))
    return estimated / factor, estimated * factor


def roughly(seconds: float) -> str:
    """Format an estimated time in the largest unit that fits."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def between(low: float, high: float) -> str:
    """Format the range of an estimated time: "13 to 25 min", or "about 13 min" where both ends have the same text.

    A range over a factor of 20 has no lower end.
    """
    least, most = roughly(low), roughly(high)
    if least == most:
        return f"about {most}"
    if low < 1 or high > MOST_FACTOR * low:
        return f"up to {most}"
    number, unit = least.split()
    return f"{number if unit == most.split()[1] else least} to {most}"
