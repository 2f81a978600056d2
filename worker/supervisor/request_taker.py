"""A worker's thread beside its jobs, which takes requests of one kind from the database and sees them through."""

import threading
from abc import ABC, abstractmethod

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.database import session_factory
from core.settings import Settings

logger = structlog.get_logger()


class RequestTaker(ABC):
    """Thread that takes requests, one at a time, once it is started; `name` says of what."""

    def __init__(self, name: str, settings: Settings, poll_seconds: float) -> None:
        self._settings = settings
        self._poll_seconds = poll_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more; a request under way is given back. Returns at once."""
        self._ended.set()

    def wait(self, seconds: float) -> None:
        """Wait for the end after a stop."""
        self._thread.join(seconds)

    @abstractmethod
    def take_next(self, sessions: sessionmaker[Session]) -> bool:
        """Take the next request and see it through; return False where none waits."""

    def _live(self) -> None:
        """Take requests until ended, with an engine of its own, which no forked process inherits."""
        sessions = session_factory(self._settings, "worker")
        while not self._ended.is_set():
            try:
                took_one = self.take_next(sessions)
            except SQLAlchemyError as error:  # the next look comes
                logger.warning("no requests", taker=self._thread.name, error=str(error).partition("\n")[0])
                took_one = False
            if not took_one:
                self._ended.wait(self._poll_seconds)
        sessions.kw["bind"].dispose()
