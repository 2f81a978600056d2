"""Loop that sends due deliveries, in the dispatcher's process; any number of dispatchers may run it.

One thread claims and records, and each running delivery has a thread of its own, within time limits. An endpoint gets a
few deliveries at a time; only one while it fails, or while its team has many running. A team gets a quarter of the
threads, and all failing endpoints together half of them. So a receiver that is slow, or never answers, delays only its
own deliveries.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Final

import structlog
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.http.address_policy import AddressPolicy
from core.http.outbound import CallFailed, Limits, post
from core.service.duties.isolation import IsolatedRows, RowTask
from core.service.teams.sealing import SecretCipher
from core.service.teams.server_secret import server_secret
from core.service.webhooks.deliveries import (
    MOST_EACH,
    Candidate,
    DeliveryOutcome,
    DueDelivery,
    candidates,
    give_up,
    lease,
    record,
)
from core.service.webhooks.signing import PURPOSE, signed_headers
from core.settings import Settings
from secateur_wire.errors import UnsafeAddress

DUTY: Final = "webhooks"
LOOK_SECONDS = 0.5
"""Seconds between two queries for due deliveries while none ends."""
IDLE_LOOKS = 10
"""Consecutive empty queries after which the loop ends; the dispatcher soon starts it again."""
RESPONSE_CHARACTERS = 1000
"""Maximum number of stored characters of an answer's body."""

log = structlog.get_logger()


@dataclass(frozen=True)
class _Sender:
    """Sender of due deliveries. `send` ends within the time limits, even if the receiver never answers."""

    address_policy: AddressPolicy
    limits: Limits

    def send(self, due: DueDelivery) -> DeliveryOutcome:
        if not due.secrets:
            return DeliveryOutcome(
                0,
                None,
                "its secret cannot be decrypted, because SECATEUR_SECRET_KEY was changed: rotate the secret",
                None,
                None,
            )
        started = time.monotonic()
        status, response, retry_after = None, None, None
        try:
            headers = signed_headers(due.delivery_id, due.claimed_at, due.payload, due.secrets)
            named = {"Content-Type": "application/json", "User-Agent": "Secateur", **headers}
            answer = post(due.url, due.payload.encode(), named, self.address_policy, self.limits)
            status, error = answer.status, _error_of(answer.status)
            response = answer.body.decode(errors="replace").replace("\0", "�")[:RESPONSE_CHARACTERS]
            retry_after = None if error is None else _retry_after(answer.headers)
        except (CallFailed, UnsafeAddress) as failure:
            error = str(failure).replace("\0", "�")
        milliseconds = round((time.monotonic() - started) * 1000)
        return DeliveryOutcome(milliseconds, status, error, response, retry_after)


def _error_of(status: int) -> str | None:
    """Return the error for a status; None for 2xx, which means delivered."""
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"answered {status}: redirects are not followed, so set the address that it leads to"
    return f"answered {status}"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the Retry-After seconds, given as a number or as a date."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):  # The receiver may write anything.
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def deliver_due(
    sessions: sessionmaker[Session], settings: Settings, goes_well: Callable[[], None] = lambda: None
) -> int | None:
    """Deliver until nothing is due, and call `goes_well` after each query.

    Returns the number of attempts, None for none.
    """
    address_policy = AddressPolicy(tuple(settings.webhook_allowed_networks))
    return Dispatch(sessions, settings, address_policy).run(IDLE_LOOKS, goes_well) or None


class Dispatch:
    """One run of the loop."""

    def __init__(self, sessions: sessionmaker[Session], settings: Settings, address_policy: AddressPolicy) -> None:
        self._sessions = sessions
        self._settings = settings
        self._rows = IsolatedRows(sessions, DUTY)
        total = settings.webhook_timeout_seconds
        self._sender = _Sender(address_policy, Limits(connect=min(5, total), read=min(10, total), total=total))
        self._seal = SecretCipher(server_secret(settings), PURPOSE)
        self._ended: queue.SimpleQueue[tuple[DueDelivery, DeliveryOutcome]] = queue.SimpleQueue()
        self._on_the_way: dict[tuple[str, int], DueDelivery] = {}

    def run(self, idle_looks: int, goes_well: Callable[[], None] = lambda: None) -> int:
        """Deliver until several queries in a row were empty; return the number of attempts."""
        attempts = idle = 0
        while True:
            for due in self._claim():
                attempts += 1
                self._start(due)
            idle = 0 if self._on_the_way else idle + 1
            if idle > idle_looks:
                return attempts
            self._record_what_ended()
            goes_well()

    def _claim(self) -> Sequence[DueDelivery]:
        room = self._settings.webhook_connections - len(self._on_the_way)
        if room <= 0:
            return []
        choice = _Choice(self._on_the_way.values(), self._settings.webhook_connections)
        with transaction(self._sessions) as session:
            due = candidates(session, most=4 * room, full=choice.full, full_teams=choice.full_teams)
            chosen = [each for each in due if choice.takes(each)][:room]
            return lease(session, chosen, seconds=2 * self._settings.webhook_timeout_seconds, seal=self._seal)

    def _start(self, due: DueDelivery) -> None:
        self._on_the_way[due.delivery_id, due.attempt] = due

        def send() -> None:
            try:
                outcome = self._sender.send(due)
            except Exception as error:  # A fault of this service: it is reported, and retried like any failure.
                log.error("webhook not sent", delivery=due.delivery_id, exc_info=error)
                outcome = DeliveryOutcome(0, None, f"an unexpected error: {type(error).__name__}", None, None)
            self._ended.put((due, outcome))

        threading.Thread(target=send, name=f"webhook {due.delivery_id}", daemon=True).start()

    def _record_what_ended(self) -> None:
        """Record the attempts that ended; waits for the first, at most until the next query."""
        wait = LOOK_SECONDS
        while True:
            try:
                due, outcome = self._ended.get(timeout=wait) if wait else self._ended.get_nowait()
            except queue.Empty:
                return
            self._rows.run(RowTask(due.delivery_id, partial(self._record, due, outcome), give_up))
            del self._on_the_way[due.delivery_id, due.attempt]
            wait = 0

    def _record(self, due: DueDelivery, outcome: DeliveryOutcome) -> None:
        with transaction(self._sessions) as session:
            record(session, due, outcome, self._settings)


class _Choice:
    """Selection of the due deliveries to send now."""

    def __init__(self, on_the_way: Iterable[DueDelivery], most: int) -> None:
        running = list(on_the_way)
        self._of_webhook = Counter(due.webhook_id for due in running)
        self._of_team = Counter(due.team_id for due in running)
        self._failing = sum(due.is_failing for due in running)
        failing = {due.webhook_id for due in running if due.is_failing}
        self._most_of_team = max(MOST_EACH, most // 4)
        self._most_failing = max(1, most // 2)
        self.full = failing | {each for each, count in self._of_webhook.items() if count >= MOST_EACH}
        self.full_teams = {each for each, count in self._of_team.items() if count >= self._most_of_team}

    def takes(self, each: Candidate) -> bool:
        """Return whether the delivery is sent now; if so, count it."""
        one_at_a_time = each.is_failing or self._of_team[each.team_id] >= self._most_of_team // 2
        if (
            self._of_webhook[each.webhook_id] >= (1 if one_at_a_time else MOST_EACH)
            or self._of_team[each.team_id] >= self._most_of_team
            or (each.is_failing and self._failing >= self._most_failing)
        ):
            return False
        self._of_webhook[each.webhook_id] += 1
        self._of_team[each.team_id] += 1
        self._failing += each.is_failing
        return True
