"""Fetching of samples by a worker: a thread of its parent process runs a child for each request, one at a time.

Requests are fulfilled beside the worker's jobs. The child fetches from the package index, converts in a runner, and
stores. The thread keeps the request's lease and limits the child's time.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import structlog
from sqlalchemy.orm import Session, sessionmaker

from core.service.samples import queue
from core.service.samples.queue import ClaimedSample
from core.settings import Settings
from secateur_wire.errors import SecateurError, Unavailable
from worker.processes import spawn
from worker.supervisor.request_taker import RequestTaker

FULFILLER: tuple[str, ...] = (sys.executable, "-m", "worker.samples.requested")
"""Command of the child; the claim is its argument."""
MOST_SECONDS = 1800.0
"""Longest time for the child: to fetch a hundred megabytes over a slow line, and to convert them."""
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

    def facts(self, claimed: ClaimedSample) -> Mapping[str, str]:
        return {"sample": claimed.id}

    def renew(self, session: Session, claimed: ClaimedSample) -> bool:
        return queue.renew(session, claimed, self._settings.lease_seconds)

    def release(self, session: Session, claimed: ClaimedSample) -> None:
        queue.release(session, claimed)

    def fail(self, session: Session, claimed: ClaimedSample, error: Exception) -> None:
        assert isinstance(error, SecateurError)
        problem = error.problem()
        queue.fail(session, claimed, problem)
        logger.warning("no samples", reason=problem["message"])

    def fulfil(self, sessions: sessionmaker[Session], claimed: ClaimedSample, on_wait: Callable[[], None]) -> None:
        """Have a child fulfil a request; the child writes the outcome itself.

        Raises Unavailable if the child fails or takes too long.
        """
        child = spawn([*self._command, json.dumps(asdict(claimed))], name="samples")
        deadline = time.monotonic() + MOST_SECONDS
        try:
            while (code := child.wait(_LOOK_SECONDS)) is None:
                on_wait()
                if time.monotonic() > deadline:
                    raise Unavailable(f"fetching the samples took longer than {MOST_SECONDS:g} s")
        finally:
            child.end()
        if code != 0:
            raise Unavailable(f"the process that fetched the samples ended with code {code}")
