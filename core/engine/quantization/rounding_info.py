"""Description of a way to round weights, from its folder."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RoundingInfo:
    """Description of a rounding. Lists go by `rank`, lowest first; the first that a job can have is its default.

    `summary` is a sentence for users. With `needs_calibration` it reads the inputs of each layer on calibration text.
    """

    id: str
    rank: int
    summary: str
    needs_calibration: bool
