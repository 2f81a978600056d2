"""Curves of the loss over the removed share: between measured shares, and a limited distance beyond them.

The excess y of a model is ln(perplexity / dense perplexity). Its share s is the removed part of what can be removed. A
curve is a straight line of ln y over the logit of s, ln(s / (1 - s)): the loss is nothing at 0 and everything at 1, and
grows with s. Every deviation here is one of ln y: a band is a factor of the excess, and gets narrower as less is
removed.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev
from typing import Final

from secateur_wire.progress import BAND

LEAST_EXCESS: Final = 0.005
"""Smallest excess that counts as a loss: half a per cent of perplexity."""
FARTHEST: Final = 1.0
"""Longest distance in logits above the largest measured share to which a curve is continued: 2.7 times its odds."""
LEAST_SLOPE_DEVIATION: Final = 0.35
"""Smallest deviation of slopes: about the deviation of one shipped curve of zeros from the others."""
OTHER_FAMILY: Final = 1.5
"""Factor of the deviation where the slopes come from other patterns."""
USUAL_SLOPE: Final = 1.5
"""Slope where none was measured."""
LEAST_SLOPE: Final = 0.5
"""Smallest slope beyond measured shares: on a text unlike the calibration text, the smallest removal costs
something."""
_SAME: Final = 0.005
"""Largest difference between two shares that count as the same."""


@dataclass(frozen=True)
class MeasuredPoint:
    """A measured excess at a share, and the deviation of its logarithm from that of the planned job."""

    share: float
    excess: float
    deviation: float


@dataclass(frozen=True)
class Slope:
    """Mean slope of similar curves, and its deviation."""

    mean: float = USUAL_SLOPE
    deviation: float = OTHER_FAMILY * LEAST_SLOPE_DEVIATION

    @property
    def of_others(self) -> "Slope":
        """Return the slopes with a larger deviation, for use with other patterns."""
        return Slope(self.mean, OTHER_FAMILY * self.deviation)


@dataclass(frozen=True)
class ExpectedExcess:
    """An expected excess, and its band."""

    excess: float
    low: float
    high: float

    def less(self, before: float) -> "ExpectedExcess":
        """Return the part of the excess that comes after an earlier loss; the band is still that of the whole."""
        return ExpectedExcess(*(max(each - before, 0.0) for each in (self.excess, self.low, self.high)))


def logit(share: float) -> float:
    """Return ln(s / (1 - s)) of a share between 0 and 1."""
    return math.log(share / (1 - share))


def log_excess(excess: float) -> float:
    """Return the logarithm of an excess; values below the smallest count as the smallest."""
    return math.log(max(excess, LEAST_EXCESS))


@dataclass(frozen=True)
class CurvePlace:
    """Logarithm of the excess at the logit of a share."""

    where: float
    value: float
    deviation: float


def places_of(points: Sequence[MeasuredPoint]) -> list[CurvePlace]:
    """Return the places of measured points, one for each share, with values that never decrease."""
    return _rising(_merged(points))


def slope_of(curves: Iterable[Sequence[tuple[float, float]]], *, assumed: Slope | None = None) -> Slope:
    """Return the slopes of curves of (share, excess) with two or more shares; `assumed` where there is none."""
    slopes = []
    for curve in curves:
        for (share, excess), (further, more) in pairwise(sorted(curve)):
            distance = logit(further) - logit(share)
            if further - share > _SAME:
                slopes.append((log_excess(more) - log_excess(excess)) / distance)
    if not slopes:
        return assumed or Slope()
    deviation = stdev(slopes) * math.sqrt(1 + 1 / len(slopes)) if len(slopes) > 1 else 0.0
    return Slope(fmean(slopes), max(deviation, LEAST_SLOPE_DEVIATION))


def expected_excess(places: Sequence[CurvePlace], share: float, slope: Slope) -> ExpectedExcess | None:
    """Return the expected excess at a share above 0; None where no place is near enough."""
    if not places:
        return None
    where = logit(share)
    below = [each for each in places if each.where <= where]
    above = [each for each in places if each.where > where]
    if below and above:
        mean, deviation = _between(below[-1], above[0], where, slope)
    else:
        nearest, next_one = (places[0], places[1:2]) if above else (places[-1], places[-2:-1])
        distance = where - nearest.where
        if distance > FARTHEST:
            return None
        steepness = max(_slope_at(nearest, next_one, slope), LEAST_SLOPE)
        mean = nearest.value + steepness * distance
        deviation = math.hypot(nearest.deviation, slope.deviation * distance)
        proportional = nearest.value + LEAST_SLOPE * distance
        limit = BAND * nearest.deviation
        if distance > 0:
            return _expected(mean, max(mean - BAND * deviation, proportional - limit), mean + BAND * deviation)
        return _expected(mean, mean - BAND * deviation, min(mean + BAND * deviation, proportional + limit))
    return _expected(mean, mean - BAND * deviation, mean + BAND * deviation)


def _expected(mean: float, low: float, high: float) -> ExpectedExcess:
    return ExpectedExcess(math.exp(mean), math.exp(low), math.exp(high))


def _merged(points: Sequence[MeasuredPoint]) -> list[CurvePlace]:
    """Return a place for each share: the mean of its points; their differences increase its deviation."""
    groups: list[list[MeasuredPoint]] = []
    for point in sorted(points, key=lambda each: each.share):
        if groups and point.share - groups[-1][0].share <= _SAME:
            groups[-1].append(point)
        else:
            groups.append([point])
    places = []
    for group in groups:
        values = [log_excess(each.excess) for each in group]
        own = math.sqrt(fmean(each.deviation**2 for each in group))
        between = stdev(values) if len(values) > 1 else 0.0
        places.append(CurvePlace(logit(fmean(each.share for each in group)), fmean(values), math.hypot(own, between)))
    return places


def _rising(places: Sequence[CurvePlace]) -> list[CurvePlace]:
    """Return the places with values that never decrease: pool adjacent violators, each pool at its mean."""
    blocks: list[list[CurvePlace]] = []

    def value(block: Sequence[CurvePlace]) -> float:
        return fmean(each.value for each in block)

    for place in places:
        blocks.append([place])
        while len(blocks) > 1 and value(blocks[-2]) > value(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    return [CurvePlace(each.where, value(block), each.deviation) for block in blocks for each in block]


def _between(below: CurvePlace, above: CurvePlace, where: float, slope: Slope) -> tuple[float, float]:
    """Return the value between two places, and its deviation.

    The deviation is that of the places, and of a slope that changes between them.
    """
    before, after = where - below.where, above.where - where
    weight = after / (before + after)
    mean = weight * below.value + (1 - weight) * above.value
    own = weight * below.deviation + (1 - weight) * above.deviation
    return mean, math.hypot(own, slope.deviation * before * after / (before + after))


def _slope_at(nearest: CurvePlace, next_one: Sequence[CurvePlace], slope: Slope) -> float:
    """Return the slope beyond a place: that of its own curve as far as it is known, else that of other curves."""
    if not next_one:
        return slope.mean
    (other,) = next_one
    distance = other.where - nearest.where
    own = (other.value - nearest.value) / distance
    uncertain = (nearest.deviation**2 + other.deviation**2) / distance**2
    weight = slope.deviation**2 / (slope.deviation**2 + uncertain)
    return max(weight * own + (1 - weight) * slope.mean, 0.0)
