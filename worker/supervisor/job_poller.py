"""Poll of a worker for jobs, every few seconds, because hints may be lost and none come while the broker is away."""

import threading
from collections.abc import Callable

import structlog
from celery.concurrency.base import BasePool

logger = structlog.get_logger()


class JobPoller:
    """Thread that has the pool's process call `poll` at intervals, one call at a time, once it is started.

    A poll lasts as long as there are jobs; the next one waits until it ends.
    """

    def __init__(self, pool: BasePool, poll: Callable[[], None], every_seconds: float) -> None:
        self._pool = pool
        self._poll = poll
        self._every_seconds = every_seconds
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._live, name="job-poller", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def poll_now(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        """End the polls without waiting."""
        self._ended = True
        self._wake.set()

    def is_running(self) -> bool:
        """Return whether the thread lives, has not started yet, or was told to end."""
        return self._ended or self._thread.ident is None or self._thread.is_alive()

    def _live(self) -> None:
        poll = None
        while not self._ended:
            try:
                if poll is None or poll.ready():
                    poll = self._pool.apply_async(self._poll, (), {})
            except Exception:  # the pool is being replaced; the next poll tries again
                logger.exception("no poll for jobs")
                poll = None
            self._wake.wait(self._every_seconds)
            self._wake.clear()
