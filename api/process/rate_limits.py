"""Rate limits for keys, for addresses without a valid key, and for a trigger's firings.

An address may make as many requests as a key. Redis counts where it is the broker, so that all API processes count
together; otherwise memory does. While Redis is unavailable, nothing is limited: limits are not worth an outage.
"""

import threading
import time
from typing import Any

import structlog
from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.process.proxies import network_of
from core.keepalives import redis_keepalives
from core.service.jobs.broker import broker_url
from core.settings import Settings
from secateur_wire.errors import RateLimited

_REDIS_FILE = "unix://"
_REDIS = ("redis://", "rediss://", _REDIS_FILE)
_REDIS_SECONDS = 0.25
"""Longest wait for Redis."""
_AWAY_SECONDS = 5.0
"""Seconds for which Redis is not asked after it did not answer."""

log = structlog.get_logger()


class Rates:
    """Limits per minute and per second (bursts), with sliding windows."""

    def __init__(self, settings: Settings) -> None:
        self._limits: list[RateLimitItem] = []
        if settings.requests_per_minute:
            self._limits = [
                RateLimitItemPerSecond(settings.requests_burst),
                RateLimitItemPerMinute(settings.requests_per_minute),
            ]
        self._firings: list[RateLimitItem] = []
        if settings.trigger_firings_per_minute:
            self._firings = [RateLimitItemPerMinute(settings.trigger_firings_per_minute)]
        self.storage = _storage(settings)
        self._limiter = SlidingWindowCounterRateLimiter(self.storage)
        self._away_until = 0.0
        self._is_away = False
        self._lock = threading.Lock()

    def count_request(self, key_id: str) -> None:
        """Count a request with this valid key. Only the key's own caller adds to its count. Raises RateLimited."""
        self._count("key", key_id, "requests with this key", self._limits)

    def count_page(self, caller_id: str) -> None:
        """Count a request of a browser that is signed in with this key or as this person. Raises RateLimited."""
        self._count("browser", caller_id, "requests of browsers signed in as you are", self._limits)

    def count_failure(self, address: str) -> None:
        """Count a request without a valid key from the network of this address. Raises RateLimited."""
        self._count("address", network_of(address), "requests without a valid key from this address", self._limits)

    def count_firing(self, trigger_id: str) -> None:
        """Count a firing of this trigger. Raises RateLimited."""
        self._count("trigger", trigger_id, "firings of this trigger", self._firings)

    def _count(self, kind: str, who: str, what: str, limits: list[RateLimitItem]) -> None:
        if not limits or time.monotonic() < self._away_until:
            return
        try:
            for limit in limits:
                if not self._limiter.hit(limit, kind, who):
                    wait = self._limiter.get_window_stats(limit, kind, who).reset_time - time.time()
                    raise RateLimited(f"too many {what}: {limit} are allowed", retry_after=max(wait, 0))
        except StorageError as error:
            self._away_until = time.monotonic() + _AWAY_SECONDS
            self._log_change(is_away=True, error=str(error.storage_error))
        else:
            self._log_change(is_away=False)

    def _log_change(self, *, is_away: bool, error: str | None = None) -> None:
        """Log once when Redis stops answering, and once when it answers again."""
        if is_away == self._is_away:
            return
        with self._lock:
            if is_away == self._is_away:
                return
            self._is_away = is_away
        if is_away:
            log.warning("Redis does not answer: rates are not limited", error=error)
        else:
            log.info("Redis answers: rates are limited")


def _storage(settings: Settings) -> MemoryStorage | RedisStorage:
    url = broker_url(settings)
    if url is None or not url.startswith(_REDIS):
        return MemoryStorage()
    keepalives: dict[str, Any] = {} if url.startswith(_REDIS_FILE) else redis_keepalives(settings)
    return RedisStorage(
        url, wrap_exceptions=True, socket_timeout=_REDIS_SECONDS, socket_connect_timeout=_REDIS_SECONDS, **keepalives
    )
