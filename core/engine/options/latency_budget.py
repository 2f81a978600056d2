"""Noise of measured times."""

NOISE = 0.05
"""Relative difference of times up to which two runs of one model may differ, even if the rounds of each run agree."""


def latency_noise(spread: float | None) -> float:
    """Return the largest relative difference of two times that does not show a difference between the models.

    It is the spread between the rounds of one model where that is known, and at least `NOISE`.
    """
    return max(NOISE, float(spread or 0.0))
