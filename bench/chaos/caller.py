"""A good client's requests: made again where that can help, through whichever API process answers."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from bench.chaos.installation import Installation
from bench.chaos.journal import Journal
from secateur import Client, errors

ANSWER_SECONDS = 20.0
"""An answer is waited for this long: an API process may be frozen for longer."""
PATIENCE_SECONDS = 300.0
"""A call is made again for this long; nothing that is done to an installation lasts longer."""
LAST_SECONDS = 45.0
"""The same, once clients are told to stop."""
_PASSING = frozenset({408, 429, 502, 503, 504, 507})
_PASSING_ERRORS = (
    errors.Unreachable,
    errors.ServerError,
    errors.TooManyRequests,
    errors.SlowRequest,
    errors.DownloadInterrupted,
    errors.UploadInterrupted,
    httpx.TransportError,
)

Answer = TypeVar("Answer")


class GaveUp(Exception):
    """Nothing answered for longer than a client waits, or clients were told to stop meanwhile."""


class Caller:
    """One team's requests, from one thread. What a server should never answer is noted in the journal as `refused`."""

    def __init__(
        self, installation: Installation, team: str, journal: Journal, stop: threading.Event, chosen: random.Random
    ) -> None:
        self.team = team
        self.stop = stop
        self.chosen = chosen
        self._journal = journal
        self._key = installation.admin_keys[team]
        self._apis = installation.apis
        self._stopped_at: float | None = None

    def base(self) -> str:
        """The address of an API process, whichever."""
        return self.chosen.choice(self._apis)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        allowed: frozenset[int] = frozenset(),
    ) -> httpx.Response:
        """Return an answer that is final. One of 400 to 499 that is not `allowed` is noted as refused."""

        def attempt() -> httpx.Response:
            with self.http() as client:
                answer = client.request(method, path, json=body, content=content, headers=headers)
            if answer.status_code in _PASSING:
                raise httpx.TransportError(f"{answer.status_code} {answer.text[:200]}")
            if answer.status_code >= 500:
                self.refused(f"{method} {path}", answer.status_code, answer.text[:500])
                raise httpx.TransportError(f"{answer.status_code}")
            return answer

        answer = self.persist(f"{method} {path}", attempt)
        if answer.is_client_error and answer.status_code not in allowed:
            self.refused(f"{method} {path}", answer.status_code, answer.text[:500])
        return answer

    def use(self, doing: str, act: Callable[[Client], Answer]) -> Answer | None:
        """Return what `act` makes of the SDK, None where it is refused, which is noted."""

        def attempt() -> Answer:
            try:
                with Client(self.base(), self._key, timeout=ANSWER_SECONDS, retries=1) as client:
                    return act(client)
            except errors.IdempotencyConflict:
                raise
            except errors.Conflict as error:  # such as with what another process has in its hands, frozen or not
                raise httpx.TransportError(str(error)) from error

        try:
            return self.persist(doing, attempt)
        except errors.SecateurError as error:
            self.refused(doing, getattr(error, "status", 0), f"{type(error).__name__}: {error}")
            return None

    def persist(self, doing: str, attempt: Callable[[], Answer]) -> Answer:
        """Try until it is not for a passing reason that it fails. Raises GaveUp, and any other failure."""
        began = time.monotonic()
        for tried in itertools.count():
            try:
                return attempt()
            except _PASSING_ERRORS as error:
                if isinstance(error, errors.InternalError):
                    self.refused(doing, error.status, str(error))
                if self._is_late(began):
                    self._journal.note("gave_up", team=self.team, doing=doing, error=str(error)[:300])
                    raise GaveUp(doing) from error
                time.sleep(min(0.2 * 2**tried, 3.0) * self.chosen.uniform(0.5, 1.0))
        raise AssertionError("unreachable")

    def refused(self, doing: str, status: int, text: str) -> None:
        self._journal.note("refused", team=self.team, doing=doing, status=status, text=text)

    @contextmanager
    def http(self, base: str | None = None, *, seconds: float = ANSWER_SECONDS) -> Iterator[httpx.Client]:
        headers = {"Authorization": f"Bearer {self._key}"}
        with httpx.Client(
            base_url=base or self.base(), headers=headers, timeout=seconds, follow_redirects=True, trust_env=False
        ) as client:
            yield client

    def _is_late(self, began: float) -> bool:
        now = time.monotonic()
        if self.stop.is_set():
            self._stopped_at = self._stopped_at or now
            return now > self._stopped_at + LAST_SECONDS
        return now > began + PATIENCE_SECONDS
