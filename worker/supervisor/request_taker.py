"""A worker's thread beside its jobs, which takes requests of one kind from the database and sees them through."""

import threading
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError, TimeoutError
from sqlalchemy.orm import Session, sessionmaker

from core.database import session_factory, transaction
from core.errors import InternalError, SecateurError
from core.settings import Settings
from secateur_wire.problems import StoredProblem

Claimed = TypeVar("Claimed")
_DATABASE_AWAY = (InterfaceError, OperationalError, TimeoutError)
_MOST_MESSAGE = 500

logger = structlog.get_logger()


class RequestStopped(Exception):
    """Signal that the worker ends, or that the request is another worker's now."""


class RequestTaker(ABC, Generic[Claimed]):
    """Thread that takes requests, one at a time, once it is started; `name` says of what.

    No request ends it: one that raises what nobody foresaw fails with that as its reason, and the next one is taken.
    """

    unforeseen: ClassVar[type[SecateurError]] = InternalError
    """Error of a request that raised what nobody foresaw."""

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

    def is_running(self) -> bool:
        """Return whether the thread lives, is yet to start, or was told to end."""
        return self._ended.is_set() or self._thread.ident is None or self._thread.is_alive()

    @abstractmethod
    def claim(self, session: Session) -> Claimed | None:
        """Take the next request; return None where none waits."""

    @abstractmethod
    def see_through(self, sessions: sessionmaker[Session], claimed: Claimed) -> None:
        """See a request through to its end, which is written into its row."""

    @abstractmethod
    def fail(self, session: Session, claimed: Claimed, problem: StoredProblem) -> None:
        """Write into a request's row why it failed."""

    def take_next(self, sessions: sessionmaker[Session]) -> bool:
        """Take the next request and see it through; return False where none waits."""
        with transaction(sessions) as session:
            claimed = self.claim(session)
        if claimed is None:
            return False
        try:
            self.see_through(sessions, claimed)
        except _DATABASE_AWAY:
            raise  # its lease runs out, and it is taken again
        except Exception as error:
            logger.exception("a request ended unexpectedly", taker=self._thread.name)
            unforeseen = self.unforeseen(f"{type(error).__name__}: {error}"[:_MOST_MESSAGE])
            with transaction(sessions) as session:
                self.fail(session, claimed, unforeseen.problem())
        return True

    def _live(self) -> None:
        """Take requests until ended, with an engine of its own, which no forked process inherits."""
        sessions = session_factory(self._settings, "worker")
        while not self._ended.is_set():
            try:
                took_one = self.take_next(sessions)
            except SQLAlchemyError as error:  # the next look comes
                logger.warning("no requests", taker=self._thread.name, error=str(error).partition("\n")[0])
                took_one = False
            except Exception:
                logger.exception("no requests", taker=self._thread.name)
                took_one = False
            if not took_one:
                self._ended.wait(self._poll_seconds)
        sessions.kw["bind"].dispose()
