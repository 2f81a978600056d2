"""Noise of measured times, and the memory that timing two models needs."""

NOISE = 0.05
"""Relative difference of times up to which two runs of one model may differ, however close their rounds."""


def latency_noise(spread: float | None) -> float:
    """Return the relative difference of two times up to which they prove no difference of the models.

    It is the spread between the rounds of one model, as far as that is known, and never less than `NOISE`.
    """
    return max(NOISE, float(spread or 0.0))


def bytes_in_turn(dense: int, pruned: int) -> int:
    """Return the bytes of memory in which two models of so many bytes can be timed in turn."""
    return int(1.2 * (dense + pruned))
