"""Lease on one attempt: a thread renews it, and keeps the queue's last answer for the supervisor."""

import threading
import time
from types import TracebackType
from typing import Literal, Self

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs import queue
from core.service.jobs.queue.transitions import status_of

LeaseState = Literal["running", "cancelling", "lost"]

LOOK_SECONDS = 1.0
"""Seconds between checks for a cancellation, and between retries while the database is away."""

logger = structlog.get_logger()


class Lease:
    """Lease on an attempt, held as a context while the job runs.

    `state` is the queue's last answer: `cancelling` if a user asked for the end; `lost` if the attempt is no longer
    this worker's, or the lease ran out while the database could not be reached. Lost is final.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        job_id: str,
        attempt: int,
        worker_id: str,
        *,
        lease_seconds: float,
        renew_seconds: float,
    ) -> None:
        self._sessions = sessions
        self._job_id = job_id
        self._attempt = attempt
        self._worker_id = worker_id
        self._lease_seconds = lease_seconds
        self._renew_seconds = renew_seconds
        self._state: LeaseState = "running"
        self._renewed_at = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease {job_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def state(self) -> LeaseState:
        if time.monotonic() >= self._renewed_at + self._lease_seconds:
            self._state = "lost"
        return self._state

    def holds(self, session: Session) -> bool:
        """Return whether the job is this attempt's, and renew the lease; the job's row stays locked."""
        return self._renew(session) != "lost"

    def lose(self) -> None:
        """Mark the lease as lost, because a write of this attempt matched no row: another attempt has the job."""
        self._state = "lost"

    def _keep(self) -> None:
        while not self._ended.wait(min(LOOK_SECONDS, self._renew_seconds)) and self.state != "lost":
            try:
                self._renew_if_due()
            except DBAPIError as error:
                logger.warning("lease not renewed", error=str(error.orig))

    def _renew_if_due(self) -> None:
        """Renew the lease when it is due, or at once if the job is being cancelled."""
        now = time.monotonic()
        with transaction(self._sessions) as session:
            due = now >= self._renewed_at + self._renew_seconds
            is_cancelling = self._state == "running" and status_of(session, self._job_id) == "cancelling"
            if not due and not is_cancelling:
                return
            answer = self._renew(session)
        if answer != "lost":
            self._renewed_at = now
        if self._state != "lost":
            self._state = answer

    def _renew(self, session: Session) -> LeaseState:
        return queue.renew(session, self._job_id, self._attempt, self._worker_id, self._lease_seconds)
