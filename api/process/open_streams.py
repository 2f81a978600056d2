"""Connections that stay open: event streams are counted, and the process's descriptors suffice for others."""

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog

from core.service.teams.principal import Principal
from core.settings import Settings
from secateur_wire.errors import RateLimited

RETRY_SECONDS: Final = 15.0
_ALL: Final = "all"

log = structlog.get_logger()


class OpenStreams:
    """Event streams that are open in this process, counted in its event loop by caller and by team.

    All together take at most half of the process's descriptors, so that other requests and health checks get theirs.
    """

    def __init__(self, settings: Settings) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = settings.event_streams
        self._most = most if descriptors == resource.RLIM_INFINITY else min(most, descriptors // 2)
        self._open: Counter[str] = Counter()

    def require_room(self, caller: Principal) -> None:
        """Raise RateLimited where another stream of a caller would be one too many."""
        shares = {caller.id: (8, "you"), caller.team_id: (2, "your team"), _ALL: (1, "all callers of this process")}
        for owner, (share, words) in shares.items():
            most = max(1, self._most // share)
            if self._open[owner] >= most:
                raise RateLimited(
                    f"too many open event streams: {words} may have {most} in each process of the API "
                    "(SECATEUR_EVENT_STREAMS); close one, or ask for events without a stream",
                    retry_after=RETRY_SECONDS,
                )

    @contextmanager
    def one(self, caller: Principal) -> Iterator[None]:
        """Count a stream of a caller while it is open. Raises RateLimited where it would be one too many."""
        self.require_room(caller)
        owners = caller.id, caller.team_id, _ALL
        self._open.update(owners)
        try:
            yield
        finally:
            self._open.subtract(owners)
            self._open += Counter()  # forgets who has none


def take_descriptors() -> None:
    """Raise the limit on this process's descriptors to what it may have; in the event loop.

    If they run out all the same, that is logged once a second: asyncio reports each of thousands of tries.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logged_at = float("-inf")

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal logged_at
        if not str(context.get("message")).startswith("socket.accept()"):
            loop.default_exception_handler(context)
        elif time.monotonic() - logged_at >= 1:
            logged_at = time.monotonic()
            log.error("no connection can be accepted", reason=str(context.get("exception")))

    asyncio.get_running_loop().set_exception_handler(handle)
