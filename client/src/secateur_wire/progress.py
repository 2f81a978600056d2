"""Times that are only estimated: their range, what is left of it, and the words in which every part shows it."""

import math
from statistics import NormalDist
from typing import Final

BAND: Final = NormalDist().inv_cdf(0.95)
"""Deviations on either side of an estimate within which nine in ten outcomes should lie."""
LEAST_DEVIATION: Final = 0.1
"""Deviation of a time's logarithm at least, also where all jobs before took the formula's."""

TRUSTED: Final = 0.25
"""Progress from which an attempt's own pace counts alone; before, the estimate does too, less and less."""

LEAST: Final = 0.02
"""Progress from which an attempt has a pace at all."""


def remaining_seconds(progress: float, elapsed: float, estimated: float | None) -> float | None:
    """Return how many seconds an attempt will still take that has come so far after `elapsed` seconds.

    `estimated` is how long it was expected to take. None where nothing can be said, as for an attempt that takes longer
    than expected and has not come far enough to have a pace.
    """
    pace = elapsed / progress if progress >= LEAST else None
    if pace is None:
        return None if estimated is None or estimated <= elapsed else estimated - elapsed
    weight = 1.0 if estimated is None else min(progress / TRUSTED, 1.0)
    total = weight * pace + (1 - weight) * max(estimated or 0.0, elapsed)
    return max(total - elapsed, 0.0)


def seconds_range(estimated: float, deviation: float | None) -> tuple[float, float]:
    """Return the least and the most that an estimated time should come to; the estimate twice without a deviation."""
    factor = 1.0 if deviation is None else math.exp(BAND * max(deviation, LEAST_DEVIATION))
    return estimated / factor, estimated * factor


def remaining_range(
    progress: float, elapsed: float, estimated: float | None, deviation: float | None
) -> tuple[float, float] | None:
    """Return the least and the most that an attempt will still take, as `remaining_seconds` does.

    The two draw near as the attempt's own pace replaces the estimate. `deviation` is that of the estimate's logarithm.
    """
    least, most = (None, None) if estimated is None else seconds_range(estimated, deviation)
    high = remaining_seconds(progress, elapsed, most)
    return None if high is None else (remaining_seconds(progress, elapsed, least) or 0.0, high)


def roughly(seconds: float) -> str:
    """Format a time that is only estimated, in the largest unit that fits."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def between(low: float, high: float) -> str:
    """Format the range of an estimated time: "13 to 25 min", and "about 13 min" where its ends read the same."""
    least, most = roughly(low), roughly(high)
    if least == most:
        return f"about {most}"
    if low < 1:
        return f"up to {most}"
    number, unit = least.split()
    return f"{number if unit == most.split()[1] else least} to {most}"
