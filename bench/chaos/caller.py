"""A good client's requests: made again where that can help, through whichever API process answers."""

import itertools
import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from bench.chaos.installation import Installation, Journal
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
        self, installation: Installation, journal: Journal, team: str, stop: threading.Event, chosen: random.Random
    ) -> None:
        self.team = team
        self.stop = stop
        self.chosen = chosen
        self._journal = journal
        self._installation = installation
        self._stopped_at: float | None = None

    def note(self, kind: str, **said: Any) -> None:
        """Write down what the client was told."""
        self._journal.note(kind, team=self.team, **said)

    def call(self, method: str, path: str, *, allowed: frozenset[int] = frozenset(), **request: Any) -> httpx.Response:
        """Return an answer that is final; `request` is as httpx has it. One of 400 to 499 that is not `allowed` is
        noted as refused.
        """

        def attempt() -> httpx.Response:
            with self.http() as client:
                answer = client.request(method, path, **request)
            if answer.status_code >= 500 and answer.status_code not in _PASSING:
                self.refused(f"{method} {path}", answer.status_code, answer.text[:500])
            if answer.status_code >= 500 or answer.status_code in _PASSING:
                raise httpx.TransportError(f"{answer.status_code} {answer.text[:200]}")
            return answer

        answer = self._persist(f"{method} {path}", attempt)
        if answer.is_client_error and answer.status_code not in allowed:
            self.refused(f"{method} {path}", answer.status_code, answer.text[:500])
        return answer

    def use(self, doing: str, act: Callable[[Client], Answer]) -> Answer | None:
        """Return what `act` makes of the SDK, None where it is refused, which is noted."""

        def attempt() -> Answer:
            try:
                api, key = self._api(), self._installation.admin_keys[self.team]
                with Client(api, key, timeout=ANSWER_SECONDS, retries=1) as client:
                    return act(client)
            except errors.IdempotencyConflict:
                raise
            except errors.Conflict as error:  # such as with what another process has in its hands, frozen or not
                raise httpx.TransportError(str(error)) from error

        try:
            return self._persist(doing, attempt)
        except errors.SecateurError as error:
            self.refused(doing, getattr(error, "status", 0), f"{type(error).__name__}: {error}")
            return None

    def refused(self, doing: str, status: int, text: str) -> None:
        self.note("refused", doing=doing, status=status, text=text)

    def http(self, *, seconds: float = ANSWER_SECONDS) -> httpx.Client:
        """Return a client of an API process, whichever."""
        return self._installation.http(self.team, self._api(), seconds=seconds)

    def _api(self) -> str:
        return self.chosen.choice(self._installation.apis)

    def _persist(self, doing: str, attempt: Callable[[], Answer]) -> Answer:
        """Try until it is not for a passing reason that it fails. Raises GaveUp, and any other failure."""
        began = time.monotonic()
        for tried in itertools.count():
            try:
                return attempt()
            except _PASSING_ERRORS as error:
                if isinstance(error, errors.InternalError):
                    self.refused(doing, error.status, str(error))
                if self._is_late(began):
                    self.note("gave_up", doing=doing, error=str(error)[:300])
                    raise GaveUp(doing) from error
                time.sleep(min(0.2 * 2**tried, 3.0) * self.chosen.uniform(0.5, 1.0))
        raise AssertionError("unreachable")

    def _is_late(self, began: float) -> bool:
        now = time.monotonic()
        if self.stop.is_set():
            self._stopped_at = self._stopped_at or now
            return now > self._stopped_at + LAST_SECONDS
        return now > began + PATIENCE_SECONDS
