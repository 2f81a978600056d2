"""A worker's fetching of samples: a thread of its parent process has a child fulfil what teams ask for, one at a time.

It does so beside whatever job the worker has. The child fetches from the package index, converts in a runner, and
stores; here its lease is kept, and its time limited.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import structlog
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.errors import Unavailable
from core.service.samples import queue
from core.service.samples.queue import ClaimedSample
from core.settings import Settings
from secateur_wire.problems import StoredProblem
from worker.processes import ChildProcess, spawn
from worker.supervisor.request_taker import RequestTaker

FULFILLER: tuple[str, ...] = (sys.executable, "-m", "worker.samples.requested")
"""Command of the child; the claim comes as its argument."""
MOST_SECONDS = 1800.0
"""Longest that the child may take: a hundred megabytes over a slow line, and their conversion."""
_LOOK_SECONDS = 0.5

logger = structlog.get_logger()


class SampleFetcher(RequestTaker[ClaimedSample]):
    """Thread that takes requests for the samples, one at a time, once it is started."""

    def __init__(self, worker_id: str, settings: Settings, *, command: Sequence[str] = FULFILLER) -> None:
        super().__init__("sample-fetcher", settings, settings.sample_poll_seconds)
        self._worker_id = worker_id
        self._command = command

    def claim(self, session: Session) -> ClaimedSample | None:
        return queue.claim(session, worker_id=self._worker_id, lease_seconds=self._settings.lease_seconds)

    def see_through(self, sessions: sessionmaker[Session], claimed: ClaimedSample) -> None:
        child = spawn([*self._command, json.dumps(asdict(claimed))], name="samples")
        try:
            self._wait(sessions, claimed, child)
        finally:
            child.end()

    def fail(self, session: Session, claimed: ClaimedSample, problem: StoredProblem) -> None:
        queue.fail(session, claimed, problem)
        logger.warning("no samples", sample=claimed.id, reason=problem["message"])

    def _wait(self, sessions: sessionmaker[Session], claimed: ClaimedSample, child: ChildProcess) -> None:
        """Wait for the child, which writes the end itself; the lease is renewed meanwhile."""
        deadline, renew_at = time.monotonic() + MOST_SECONDS, 0.0
        message: str | None = None
        while (code := child.wait(_LOOK_SECONDS)) is None:
            now = time.monotonic()
            if self._ended.is_set():
                with transaction(sessions) as session:
                    queue.release(session, claimed)
                return
            if now > deadline:
                message = f"fetching the samples took longer than {MOST_SECONDS:g} s"
                break
            if now > renew_at:
                renew_at = now + self._settings.lease_renew_seconds
                with transaction(sessions) as session:
                    if not queue.renew(session, claimed, self._settings.lease_seconds):
                        return
        if code is not None and code != 0:
            message = f"the process that fetched the samples ended with code {code}"
        if message is not None:
            with transaction(sessions) as session:
                self.fail(session, claimed, Unavailable(message).problem())
