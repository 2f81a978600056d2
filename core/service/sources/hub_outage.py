"""Memory of an unavailable hub, so that later requests fail at once instead of waiting for it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Final

from secateur_wire.errors import HubUnavailable

AWAY_SECONDS: Final = 60.0
"""Time for which an unavailable hub is not asked again."""
_SILENT_REPOSITORIES: Final = 2
"""Number of consecutive repositories without an answer after which the hub counts as unavailable: a single one may be
slow."""


class HubOutage:
    """Outage of the hub as one process knows it, safe to share between threads."""

    def __init__(self) -> None:
        self._until = 0.0
        self._silent: set[str] = set()
        self._lock = threading.Lock()

    @property
    def seconds_left(self) -> float:
        """Return the remaining seconds of the outage; 0 where the hub may be asked."""
        return max(0.0, self._until - time.monotonic())

    def begin(self) -> None:
        """Record that the hub does not answer."""
        self._until = time.monotonic() + AWAY_SECONDS

    @contextmanager
    def watched(self, repository: str) -> Iterator[None]:
        """Watch a request about a repository: it begins, continues or ends an outage.

        Raises HubUnavailable during an outage, before the hub is asked.
        """
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        seconds = self.seconds_left
        if seconds:
            raise HubUnavailable(
                f"the hub did not answer a short while ago; it is asked again in {ceil(seconds)} seconds",
                retry_after=ceil(seconds),
            )
        try:
            yield
        except httpx2.TransportError:
            with self._lock:
                self._silent.add(repository)
                if len(self._silent) >= _SILENT_REPOSITORIES:
                    self._silent.clear()
                    self.begin()
            raise
        except HfHubHTTPError:
            self._end()
            raise
        self._end()

    def _end(self) -> None:
        with self._lock:
            self._silent.clear()
            self._until = 0.0
