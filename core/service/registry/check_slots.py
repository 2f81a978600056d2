"""Slots for checks of what strangers wrote: as many as memory allows, shared between teams in turn."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from core.sandbox import CHECK_BYTES
from secateur_wire.errors import Unavailable

WAIT_SECONDS = 10.0
MOST_WAITING = 8
MOST_WAITING_OF_TEAM = 3


@dataclass(frozen=True, eq=False)
class _Waiting:
    team_id: str


class CheckSlots:
    """Slots of one process. Each check holds one slot while it runs.

    A team never gets the last free slot of several, so that its large files do not block another team's. The next slot
    goes to the first waiting check of the team with the fewest running checks.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.count = max(1, memory_bytes // CHECK_BYTES)
        self._most_of_team = max(1, self.count - 1)
        self._changed = threading.Condition()
        self._running: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []

    @contextmanager
    def slot(self, team_id: str) -> Iterator[None]:
        """Hold a slot inside the context; raises Unavailable if none is free in time, or if too many are waiting."""
        self._take(team_id)
        try:
            yield
        finally:
            with self._changed:
                self._running[team_id] -= 1
                self._changed.notify_all()

    def _take(self, team_id: str) -> None:
        until = time.monotonic() + WAIT_SECONDS
        own = _Waiting(team_id)
        with self._changed:
            of_team = sum(each.team_id == team_id for each in self._waiting)
            if len(self._waiting) >= MOST_WAITING or of_team >= MOST_WAITING_OF_TEAM:
                raise self._busy()
            self._waiting.append(own)
            try:
                while self._next() is not own:
                    if not self._changed.wait(until - time.monotonic()) and self._next() is not own:
                        raise self._busy()
                self._running[team_id] += 1
            finally:
                self._waiting.remove(own)
                self._changed.notify_all()

    def _next(self) -> _Waiting | None:
        """Return the next waiting check to start."""
        if self._running.total() >= self.count:
            return None
        allowed = [each for each in self._waiting if self._running[each.team_id] < self._most_of_team]
        return min(allowed, key=lambda each: self._running[each.team_id], default=None)

    def _busy(self) -> Unavailable:
        return Unavailable(
            f"files are checked {self.count} at a time: {self._running.total()} checks run and "
            f"{len(self._waiting)} wait. This one has not begun: try again"
        )
