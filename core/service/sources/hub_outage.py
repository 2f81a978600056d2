"""Memory of a hub that does not answer, so that not everybody waits for it in turn."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Final

from secateur_wire.errors import HubUnavailable

AWAY_SECONDS: Final = 60.0
"""Time for which a hub that did not answer is not asked again."""
_SILENT_REPOSITORIES: Final = 2
"""Repositories in a row for which no answer came, after which the hub is taken to be away: one may only be slow."""


class HubOutage:
    """Outage of the hub as one process knows it, safe to share between threads."""

    def __init__(self) -> None:
        self._until = 0.0
        self._silent: set[str] = set()
        self._lock = threading.Lock()

    @property
    def seconds_left(self) -> float:
        """Return the seconds for which the hub is not asked; 0 while it is."""
        return max(0.0, self._until - time.monotonic())

    def begin(self) -> None:
        """Note that the hub does not answer."""
        self._until = time.monotonic() + AWAY_SECONDS

    @contextmanager
    def watched(self, repository: str) -> Iterator[None]:
        """Watch a request about a repository: it begins, continues or ends an outage.

        Raises HubUnavailable during an outage, before the hub is asked.
        """
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        left = self.seconds_left
        if left:
            raise HubUnavailable(
                f"the hub did not answer a short while ago, and is asked again in {ceil(left)} seconds",
                retry_after=ceil(left),
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
