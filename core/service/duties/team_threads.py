"""Threads for work that waits for the hub: a few for all teams together, and one at a time for each team."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

MOST_THREADS: Final = 8

THREAD_NAME: Final = "waits for the hub"

Key = tuple[str, str]
"""Name of a duty, and id of one of its rows."""

log = structlog.get_logger()


class TeamThreads:
    """Threads that end when no work is left. Teams take turns, so a team with much work delays only itself."""

    def __init__(self, most: int = MOST_THREADS) -> None:
        self._most = most
        self._waiting: dict[str, deque[tuple[Key, Callable[[], object]]]] = {}
        self._turns: deque[str] = deque()
        self._keys: set[Key] = set()
        self._threads = 0
        self._changed = threading.Condition()

    def start(self, team_id: str, key: Key, work: Callable[[], object]) -> None:
        """Queue work until it is the team's turn, unless work with the same key is queued or running already."""
        with self._changed:
            if key in self._keys:
                return
            self._keys.add(key)
            if team_id not in self._waiting:
                self._waiting[team_id] = deque()
                self._turns.append(team_id)
            self._waiting[team_id].append((key, work))
            if self._turns and self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._serve, name=THREAD_NAME, daemon=True).start()

    def under_way(self, duty: str) -> list[str]:
        """Return the ids of the duty's rows whose work is queued or running."""
        with self._changed:
            return [row_id for name, row_id in self._keys if name == duty]

    def wait(self, seconds: float) -> bool:
        """Wait until no work is left; False after the time limit."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._keys, seconds)

    def _serve(self) -> None:
        while True:
            with self._changed:
                if not self._turns:
                    self._threads -= 1
                    return
                team_id = self._turns.popleft()  # No other thread takes this team until it is put back.
                key, work = self._waiting[team_id].popleft()
            try:
                work()
            except Exception as error:  # The database is unavailable: the duty's next run takes the row again.
                log.warning("work of a duty failed", duty=key[0], row=key[1], error=str(error).partition("\n")[0])
            with self._changed:
                self._keys.discard(key)
                if self._waiting[team_id]:
                    self._turns.append(team_id)
                else:
                    del self._waiting[team_id]
                self._changed.notify_all()
