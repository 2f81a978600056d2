"""Lease of a running publication: a thread renews it with the progress, and each step checks it."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.publications import queue
from core.service.publications.queue import ClaimedPublication

LOOK_SECONDS = 1.0

logger = structlog.get_logger()


class LostError(Exception):
    """Lease lost: the publication was cancelled, given up, or taken over. Its work ends here."""


class PublicationLease:
    """Context that holds the lease. `check` and `at` raise LostError once the lease is lost, which is final."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        claimed: ClaimedPublication,
        lease_seconds: float,
        on_renewed: Callable[[], None],
    ) -> None:
        self._sessions = sessions
        self._claimed = claimed
        self._lease_seconds = lease_seconds
        self._on_renewed = on_renewed
        self._renewed_at = time.monotonic()
        self._lost = False
        self._done = (0, 0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease {claimed.id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Require that the lease is still held; raises LostError."""
        if self._lost or time.monotonic() >= self._renewed_at + self._lease_seconds:
            self._lost = True
            raise LostError

    def at(self, files: int, count: int) -> None:
        """Report the number of files, and of bytes of all files together, that have arrived. Raises LostError."""
        self._done = (files, count)
        self.check()

    def _keep(self) -> None:
        while not self._lost and not self._ended.wait(min(LOOK_SECONDS, self._lease_seconds / 4)):
            now = time.monotonic()
            files, count = self._done
            try:
                with transaction(self._sessions) as session:
                    is_ours = queue.renew(
                        session, self._claimed, lease_seconds=self._lease_seconds, files_done=files, bytes_done=count
                    )
            except DBAPIError as error:
                logger.warning("publication not renewed", error=type(error).__name__)
                continue
            if is_ours:
                self._renewed_at = now
                self._on_renewed()
            else:
                self._lost = True
