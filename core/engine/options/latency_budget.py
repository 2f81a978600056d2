"""Noise of measured times."""

NOISE = 0.05
"""Relative difference of times up to which two runs of one model may differ, however close their rounds."""


def latency_noise(spread: float | None) -> float:
    """Return the relative difference of two times up to which they prove no difference of the models.

    It is the spread between the rounds of one model, as far as that is known, and never less than `NOISE`.
    """
    return max(NOISE, float(spread or 0.0))
