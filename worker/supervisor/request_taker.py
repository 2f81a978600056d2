"""Thread of a worker, beside its jobs, that takes requests of one kind from the database and fulfils them."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Generic, TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError, TimeoutError
from sqlalchemy.orm import Session, sessionmaker

from core.database import session_factory, transaction
from core.settings import Settings
from secateur_wire.errors import InternalError, SecateurError

Claimed = TypeVar("Claimed")
_DATABASE_AWAY = (InterfaceError, OperationalError, TimeoutError)
_MOST_MESSAGE = 500

logger = structlog.get_logger()


class RequestStopped(Exception):
    """Signal that the worker ends, or that another worker has the request now."""


class RequestTaker(ABC, Generic[Claimed]):
    """Thread that takes requests, one at a time, once it is started; `name` names the kind of request.

    No request ends the thread: an unforeseen error fails the request with the error as its reason, and the next request
    is taken. When the thread is told to end, the current request is given back.
    """

    foreseen: ClassVar[tuple[type[Exception], ...]] = (SecateurError,)
    """Errors that a request may end with."""
    unforeseen: ClassVar[type[SecateurError]] = InternalError
    """Error that a request ends with after an unforeseen exception."""

    def __init__(self, name: str, settings: Settings, poll_seconds: float) -> None:
        self._settings = settings
        self._poll_seconds = poll_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests; the current one is given back. Returns at once."""
        self._ended.set()

    def wait(self, seconds: float) -> None:
        """Wait for the end after a stop."""
        self._thread.join(seconds)

    def is_running(self) -> bool:
        """Return whether the thread lives, has not started yet, or was told to end."""
        return self._ended.is_set() or self._thread.ident is None or self._thread.is_alive()

    @abstractmethod
    def claim(self, session: Session) -> Claimed | None:
        """Take the next request; return None if none waits."""

    @abstractmethod
    def facts(self, claimed: Claimed) -> Mapping[str, str]:
        """Return the fields of a request for log lines."""

    @abstractmethod
    def fulfil(self, sessions: sessionmaker[Session], claimed: Claimed, on_wait: Callable[[], None]) -> None:
        """Fulfil a request, and write the outcome into its row.

        `on_wait` has to be called about twice a second; an exception from it ends the work. Raises `foreseen` errors if
        the request fails.
        """

    def renew(self, session: Session, claimed: Claimed) -> bool:
        """Renew the lease on a request; return False if another worker has it now.

        A request whose lease is longer than its work may last needs no renewal.
        """
        return True

    @abstractmethod
    def release(self, session: Session, claimed: Claimed) -> None:
        """Give a request back unchanged, if it is still this worker's."""

    @abstractmethod
    def fail(self, session: Session, claimed: Claimed, error: Exception) -> None:
        """Write the reason of a failure into a request's row: a `foreseen` error, or `unforeseen`."""

    def take_next(self, sessions: sessionmaker[Session]) -> bool:
        """Take the next request and fulfil it; return False if none waits."""
        with transaction(sessions) as session:
            claimed = self.claim(session)
        if claimed is None:
            return False
        with structlog.contextvars.bound_contextvars(**self.facts(claimed)):
            try:
                self.fulfil(sessions, claimed, self._renewal(sessions, claimed))
            except RequestStopped:
                with transaction(sessions) as session:
                    self.release(session, claimed)
            except _DATABASE_AWAY:
                raise  # the lease runs out, and the request is taken again
            except Exception as error:
                failure = error
                if not isinstance(error, self.foreseen):
                    logger.exception("a request ended unexpectedly", taker=self._thread.name)
                    failure = self.unforeseen(f"{type(error).__name__}: {error}"[:_MOST_MESSAGE])
                with transaction(sessions) as session:
                    self.fail(session, claimed, failure)
        return True

    def _renewal(self, sessions: sessionmaker[Session], claimed: Claimed) -> Callable[[], None]:
        """Return a function that renews the lease when it is due; it raises RequestStopped."""
        renew_at = 0.0

        def renew() -> None:
            nonlocal renew_at
            now = time.monotonic()
            if self._ended.is_set():
                raise RequestStopped
            if now > renew_at:
                renew_at = now + self._settings.lease_renew_seconds
                with transaction(sessions) as session:
                    if not self.renew(session, claimed):
                        raise RequestStopped

        return renew

    def _live(self) -> None:
        """Take requests until ended, with a database engine of its own that no forked process inherits."""
        sessions = session_factory(self._settings, "worker")
        while not self._ended.is_set():
            try:
                took_one = self.take_next(sessions)
            except SQLAlchemyError as error:  # the next round tries again
                logger.warning("no requests", taker=self._thread.name, error=str(error).partition("\n")[0])
                took_one = False
            except Exception:
                logger.exception("no requests", taker=self._thread.name)
                took_one = False
            if not took_one:
                self._ended.wait(self._poll_seconds)
        sessions.kw["bind"].dispose()
