"""Time left of an attempt, from the pace of its present part and, for later parts, from the job's estimate.

Work is measured as a share of the whole attempt: the share of the time that past attempts of such jobs had spent at the
same progress, where there are any, and else the progress itself. An attempt goes through parts of it, each with a pace
of its own: blocks, training steps, tokens. Within a part the time left is the rest of the part by its pace over the
last part of the work. Later parts take what the estimate says, corrected by how long the work took so far.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Final

from secateur_wire.progress import seconds_range

WINDOW: Final = 0.3
"""Share of a part's finished work, the newest, by which its pace is measured."""
TRUSTED: Final = 0.1
"""Share of a part from which only its pace counts; before, the estimate counts too, less and less."""
BELIEVED: Final = 0.02
"""Share of the whole after which the attempt's own correction of the estimate counts half."""

LEAST_OF_ESTIMATE: Final = 0.3
"""Least share of the estimate that the parts take, however long it was until the first one began."""
_MOST_MOMENTS = 1000
"""Number of moments of a part from which every second one is dropped."""


@dataclass(frozen=True)
class Moment:
    """Finished share of the whole attempt, `at` seconds after it began."""

    at: float
    done: float


@dataclass(frozen=True)
class Part:
    """Part of an attempt that ends when the share `end` is done; its first moment is its begin.

    `began` is when the first part with work in it began, in seconds. `worked` is the share that this attempt worked on
    in earlier parts. It is less than the finished share if an earlier attempt did some of the work.
    """

    began: float
    end: float
    worked: float
    moments: Sequence[Moment]

    @property
    def done(self) -> float:
        """Return the share that is worked on in this part so far."""
        return self.moments[-1].done - self.moments[0].done

    @property
    def size(self) -> float:
        return self.end - self.moments[0].done


def expected_seconds(part: Part, now: float, estimated: float | None) -> float | None:
    """Return the seconds that all parts together take, as the estimate says and as the work so far corrects it.

    The logarithm of truth / estimate is shrunk towards 0, the less work is done the more. Without an estimate, the
    duration is by the work so far alone; None before there is any.
    """
    worked, spent = part.worked + part.done, now - part.began
    by_work = (part.moments[-1].at - part.began) / worked if worked > 0 else None
    if estimated is None:
        return by_work
    parts = max(estimated - part.began, LEAST_OF_ESTIMATE * estimated)
    if by_work is None or by_work <= 0:
        return max(parts, spent)
    believed = worked / (worked + BELIEVED)
    return parts * math.pow(by_work / parts, believed)


def paced_seconds(part: Part, now: float) -> float | None:
    """Return the seconds that the rest of a part takes at its pace; None before there is a pace.

    Between two moments, the time left falls by the time of one step at most: later, a step takes longer than before.
    """
    first, last = part.moments[0], part.moments[-1]
    if part.done <= 0:
        return None
    since = bisect_right(part.moments, last.done - WINDOW * part.done, key=attrgetter("done")) - 1
    window = part.moments[max(since, 0)]
    if last.at <= window.at:
        window = first
    if last.at <= window.at:
        return None
    per_share = (last.at - window.at) / (last.done - window.done)
    left = (part.end - last.done) * per_share
    step = per_share * (last.done - part.moments[-2].done)
    return max(left - min(now - last.at, step), 0.0)


def seconds_left(
    part: Part, now: float, estimated: float | None, deviation: float | None
) -> tuple[float, float] | None:
    """Return the least and the most seconds that an attempt will still take; None where nothing is known.

    `estimated` is the estimated duration of an attempt, and `deviation` the standard deviation of its logarithm. The
    range is that of the estimate for the work whose pace is not known.
    """
    expected, rest = expected_seconds(part, now, estimated), paced_seconds(part, now)
    if expected is None:
        return None
    trust = 0.0 if rest is None else min(part.done / (TRUSTED * part.size), 1.0)
    paced = trust * (rest or 0.0)
    here = max((part.end - part.moments[-1].done) * expected - (now - part.moments[-1].at), 0.0)
    low, high = seconds_range((1 - trust) * here + (1.0 - part.end) * expected, deviation)
    return paced + low, paced + high


def time_share(curves: Sequence[Sequence[tuple[float, float]]], progress: float) -> float:
    """Return the mean share of their time that past attempts had spent at a progress; progress itself without any.

    Each curve has ascending pairs of progress and share, from (0, 0) to (1, 1), with straight lines between them.
    """
    if not curves:
        return progress
    return sum(_on_curve(curve, progress) for curve in curves) / len(curves)


def _on_curve(curve: Sequence[tuple[float, float]], progress: float) -> float:
    after = bisect_right(curve, progress, key=itemgetter(0))
    if after == len(curve):
        return 1.0
    (left, low), (right, high) = curve[max(after - 1, 0)], curve[after]
    return low + (high - low) * (progress - left) / (right - left)


class WorkRecord:
    """Record of an attempt's work: its present part, and what was worked on before; times are seconds since its begin.

    Progress never goes back. `curves` are those of past attempts, for `time_share`.
    """

    def __init__(self, curves: Sequence[Sequence[tuple[float, float]]] = ()) -> None:
        self._curves = curves
        self._began: float | None = None
        self._worked = 0.0
        self._end = 1.0
        self._moments: list[Moment] = []

    def begin_part(self, at: float, start: float, end: float) -> None:
        """Begin a part of the work.

        The part before it has worked to its end if this one begins there or later, and else to its last moment.
        """
        start, end = time_share(self._curves, start), time_share(self._curves, end)
        if self._moments:
            first, last = self._moments[0], self._moments[-1]
            self._worked += (self._end if self._end <= start else last.done) - first.done
            start = max(start, last.done)
        if self._worked <= 0:
            self._began = at
        self._end = max(end, start)
        self._moments = [Moment(at, start)]

    def report(self, at: float, done: float) -> None:
        """Add a finished share of the whole, as the job's progress."""
        if not self._moments:
            self.begin_part(at, 0.0, 1.0)
        done = time_share(self._curves, done)
        if done <= self._moments[-1].done:
            return
        self._moments.append(Moment(at, min(done, max(self._end, self._moments[-1].done))))
        if len(self._moments) > _MOST_MOMENTS:
            self._moments = [*self._moments[:-1:2], self._moments[-1]]

    def seconds_left(
        self, now: float, estimated: float | None, deviation: float | None = None
    ) -> tuple[float, float] | None:
        """Return the least and the most seconds that the attempt will still take, as the function of this name does."""
        if self._began is None:
            return None if estimated is None else seconds_range(max(estimated - now, 0.0), deviation)
        return seconds_left(Part(self._began, self._end, self._worked, self._moments), now, estimated, deviation)
