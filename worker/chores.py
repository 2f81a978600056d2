"""What the dispatcher does beside its rounds, in threads of their own, because it may take longer than a round should:
listing a large store, waiting for others' servers.

A chore that is due starts at the dispatcher's next round, unless its last run is not over yet. What fails is told and
comes again. Nothing here must happen exactly once.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from sqlalchemy.orm import Session, sessionmaker

from core.settings import Settings

logger = structlog.get_logger()


@dataclass
class Chore:
    """`run` is called in a thread, at most once in `every_seconds`; what it returns is logged where it is not None."""

    name: str
    every_seconds: float
    run: Callable[[sessionmaker[Session], Settings], int | None]
    _due: float = field(default=0.0, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start_if_due(self, sessions: sessionmaker[Session], settings: Settings) -> None:
        if time.monotonic() < self._due or (self._thread is not None and self._thread.is_alive()):
            return
        self._due = time.monotonic() + self.every_seconds
        self._thread = threading.Thread(target=self._run, args=(sessions, settings), name=self.name, daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until the run that was started is over."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self, sessions: sessionmaker[Session], settings: Settings) -> None:
        try:
            done = self.run(sessions, settings)
            if done is not None:
                logger.info(f"{self.name} done", count=done)
        except Exception as error:  # the database or a store is away: the next run comes
            logger.warning(f"{self.name} failed", error=str(error))
