"""Duties of the dispatcher, each in a thread of its own: one that takes long, fails or hangs keeps no other waiting.

A duty that is due starts at the dispatcher's next round, unless its last run is not over yet. What fails is told and
comes again. Nothing here must happen exactly once, and every duty may be done by several dispatchers at the same time.
When each was last done is written down, for metrics.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.duties.times import note_done, note_tried
from core.settings import Settings

NOTED_SECONDS = 5.0
"""A duty's success is written down no more often."""

logger = structlog.get_logger()


@dataclass(frozen=True)
class Turn:
    """One run of a duty. A run that may last says with `goes_well`, again and again, that it does what it should."""

    sessions: sessionmaker[Session]
    settings: Settings
    goes_well: Callable[[], None] = lambda: None


@dataclass
class Duty:
    """Duty whose `run` is called in a thread, about once in `every_seconds`; results but None are logged."""

    name: str
    every_seconds: float
    run: Callable[[Turn], int | None]
    _due: float = field(default=0.0, init=False)
    _noted: float | None = field(default=None, init=False)
    _is_known: bool = field(default=False, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start_if_due(self, sessions: sessionmaker[Session], settings: Settings) -> None:
        if time.monotonic() < self._due or (self._thread is not None and self._thread.is_alive()):
            return
        self._due = time.monotonic() + 0.9 * self.every_seconds  # a round may come a little early
        self._thread = threading.Thread(target=self._run, args=(sessions, settings), name=self.name, daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until the run that was started is over."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self, sessions: sessionmaker[Session], settings: Settings) -> None:
        turn = Turn(sessions, settings, lambda: self._note(sessions))
        try:
            if not self._is_known:
                with transaction(sessions) as session:
                    note_tried(session, self.name, self.every_seconds)
                self._is_known = True
            done = self.run(turn)
            turn.goes_well()
            if done is not None:
                logger.info("duty done", duty=self.name, count=done)
        except Exception as error:  # the database, the broker or a store is away: the next run comes
            logger.warning("duty failed", duty=self.name, error=str(error))

    def _note(self, sessions: sessionmaker[Session]) -> None:
        now = time.monotonic()
        if self._noted is not None and now < self._noted + min(NOTED_SECONDS, self.every_seconds):
            return
        try:
            with transaction(sessions) as session:
                note_done(session, self.name, self.every_seconds)
        except SQLAlchemyError as error:
            logger.warning("duty not noted", duty=self.name, error=str(error).partition("\n")[0])
            return
        self._noted = now
