"""One attempt at a delivery, over the network."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from core.errors import UnsafeAddress
from core.http.address_policy import AddressPolicy
from core.http.outbound import CallFailed, Limits, post
from core.service.webhooks.deliveries import DeliveryOutcome, Due
from core.service.webhooks.signing import signed_headers

RESPONSE_CHARACTERS = 1000
"""Most characters that are kept of an answer's body."""


@dataclass(frozen=True)
class Sender:
    """Sender of due deliveries. Whatever the receiver does, `send` is over within the limits."""

    address_policy: AddressPolicy
    limits: Limits

    def send(self, due: Due) -> DeliveryOutcome:
        if not due.secrets:
            return DeliveryOutcome(
                0, None, "its secret cannot be opened: SECATEUR_SECRET_KEY was changed; rotate it", None, None
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
    """Return the error of a status; None for 2xx: the delivery arrived."""
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"answered {status}: redirects are not followed, give the address it leads to"
    return f"answered {status}"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait, given as such or as a date."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):  # whatever a receiver wrote
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
