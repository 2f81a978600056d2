"""Timeouts of calls, and the policy for retries."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx

from secateur.errors import ApiError

TIMEOUT_SECONDS: Final = 60.0
RETRIES: Final = 4
BACKOFF_SECONDS: Final = 0.25
"""First pause; each one after it is twice as long, up to `BACKOFF_LIMIT_SECONDS`, all of them × 0.5 … 1.5."""
BACKOFF_LIMIT_SECONDS: Final = 8.0
LONGEST_RETRY_AFTER_SECONDS: Final = 60.0
"""Longest Retry-After in seconds that the client waits; for a longer one it raises an error with `retry_after`."""

_REPEATED: Final = frozenset({408, 429, 502, 503, 504})

OnRetry = Callable[[Exception, float], None]
"""Callback that gets the failure and the seconds until the next try."""


@dataclass(frozen=True)
class RetryPolicy:
    """Timeout of calls (seconds), their number of retries, and the callback for each retry."""

    timeout: float = TIMEOUT_SECONDS
    retries: int = RETRIES
    on_retry: OnRetry | None = None

    def pause(self, error: Exception, tried: int) -> float | None:
        """Return the seconds before a retry of a call that failed with `error`; None where a retry would not help."""
        if tried >= self.retries:
            return None
        if isinstance(error, ApiError):
            if error.status not in _REPEATED:
                return None
            if error.retry_after is not None:
                jittered = error.retry_after + random.uniform(0, BACKOFF_SECONDS)
                return jittered if error.retry_after <= LONGEST_RETRY_AFTER_SECONDS else None
        elif isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return None  # The caller's time limit has passed.
        return min(BACKOFF_SECONDS * 2.0**tried, BACKOFF_LIMIT_SECONDS) * random.uniform(0.5, 1.5)
