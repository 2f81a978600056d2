"""Progress of a job in time: how long it will still take, as the portal and the command line show it."""

from typing import Final

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
