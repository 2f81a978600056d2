"""A worker's own look for jobs, every few seconds: while the broker is away no hint comes, and hints may be lost."""

import threading
from collections.abc import Callable

from celery.concurrency.base import BasePool


class Lookout:
    """Thread that has the pool's process call `look` once it is started, and again and again, one at a time.

    A look lasts as long as there are jobs, and the next one waits for a running job to end.
    """

    def __init__(self, pool: BasePool, look: Callable[[], None], every_seconds: float) -> None:
        self._pool = pool
        self._look = look
        self._every_seconds = every_seconds
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._live, name="lookout", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def look_now(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        """End the looks without waiting."""
        self._ended = True
        self._wake.set()

    def _live(self) -> None:
        look = None
        while not self._ended:
            if look is None or look.ready():
                look = self._pool.apply_async(self._look, (), {})
            self._wake.wait(self._every_seconds)
            self._wake.clear()
