"""Pace of a training run: the learning rate of each step, the seconds spent, and the last step.

By steps alone a run is the same on any machine. `minutes` end it by the clock: seconds are saved with the steps; the
seconds of earlier attempts count, and the time between two attempts does not.
"""

import math
import time
from collections.abc import Callable
from typing import Literal

from core.engine.recovery.request import Recovery
from core.engine.resume.store import JsonObject

Ending = Literal["steps", "minutes"]


class Pace:
    """State of a run; `seconds` has the total at the end of each step, over all attempts."""

    def __init__(self, recovery: Recovery, clock: Callable[[], float] = time.monotonic) -> None:
        self._recovery = recovery
        self._clock = clock
        self._start_time = clock()
        self.seconds: list[float] = []

    @property
    def state(self) -> JsonObject:
        """Return the state for a resumed run, as JSON."""
        return {"seconds": self.seconds}

    def restore(self, state: JsonObject) -> None:
        """Restore a saved state; only its seconds count as spent."""
        self.seconds = state["seconds"]
        self._start_time = self._clock() - (self.seconds[-1] if self.seconds else 0.0)

    def elapsed(self) -> float:
        return self._clock() - self._start_time

    def done(self, step: int, seconds: float) -> None:
        """Record the end of a step, at a time that all processes agree on."""
        self.seconds.append(seconds)

    def share(self, step: int) -> float:
        """Return the completed share of the run before a step, counted from 0."""
        return self._equivalent_step(step) / self._recovery.steps

    def _equivalent_step(self, step: int) -> float:
        """Return the step with the same progress in a run by steps alone, from the share of the minutes spent."""
        if self._recovery.minutes is None or not self.seconds:
            return step
        spent = self.seconds[-1] / (60 * self._recovery.minutes)
        return max(step, min(1.0, spent) * self._recovery.steps)

    def ending(self, step: int) -> Ending | None:
        """Return the reason why the run ends before this step; None where it continues."""
        if step >= self._recovery.steps:
            return "steps"
        return "minutes" if self.share(step) >= 1 else None

    def rate(self, step: int) -> float:
        return rate(self._equivalent_step(step), self._recovery)


def rate(place: float, recovery: Recovery) -> float:
    """Return the learning rate at a place of the run, in steps: linear warm-up, then decay to zero.

    It decays by cosine or linearly.
    """
    assert recovery.learning_rate is not None
    rising = math.ceil(recovery.warmup_ratio * recovery.steps)
    if place < rising:
        return recovery.learning_rate * min(1.0, (place + 1) / rising)
    done = min(1.0, (place - rising) / max(1, recovery.steps - rising))
    falling = 1 - done if recovery.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return recovery.learning_rate * falling
