"""Authentication of requests to a trigger's URL, and the ids of their events."""

from dataclasses import dataclass
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from core.service.triggers.json_pointer import MISSING, look_up
from core.service.triggers.secrets import is_digest_of, unseal
from core.service.triggers.tables import TriggerRow
from secateur_wire.errors import InvalidRequest, Unauthenticated
from secateur_wire.triggers import FiringSource

LONGEST_EVENT_ID = 255


@dataclass(frozen=True)
class SentHeaders:
    """Headers that authenticate a sender, and headers that identify its event."""

    webhook_id: str | None = None
    webhook_timestamp: str | None = None
    webhook_signature: str | None = None
    hub_secret: str | None = None
    idempotency_key: str | None = None


def authenticate_sender(row: TriggerRow, headers: SentHeaders, body: bytes, secret: bytes) -> FiringSource:
    """Authenticate a request; return its source: the hub, or any sender that knows the URL.

    Raises Unauthenticated unless the request has a proof that the trigger requires: a signature if it has a signing
    secret, X-Webhook-Secret if it has a hub source.
    """
    wanted: list[str] = []
    if row.hub_digest is not None:
        if headers.hub_secret is not None and is_digest_of(row.hub_digest, headers.hub_secret, secret):
            return "hub"
        wanted.append("its hub secret in X-Webhook-Secret")
    if row.signing_secret is not None:
        if headers.webhook_signature is not None or row.hub_digest is None:
            _verify(unseal(row.signing_secret, secret), headers, body)
            return "url"
        wanted.append("a Standard Webhooks signature in webhook-signature")
    if wanted:
        reason = "nothing proves who sent this" if headers.hub_secret is None else "X-Webhook-Secret is wrong"
        raise Unauthenticated(f"{reason}: this trigger needs {' or '.join(wanted)}", param="X-Webhook-Secret")
    return "url"


def event_id_of(pointer: str | None, headers: SentHeaders, payload: Any) -> str | None:
    """Return the id of a payload's event; None where its sender gives none, and every firing makes a job.

    Raises InvalidRequest where the payload has none at the trigger's pointer.
    """
    sent = headers.webhook_id or headers.idempotency_key
    if sent is not None:
        return sent
    if pointer is None:
        return None
    value = look_up(payload, pointer)
    if isinstance(value, bool) or not isinstance(value, str | int) or not 0 < len(str(value)) <= LONGEST_EVENT_ID:
        reason = "has nothing" if value is MISSING else "has no short string or integer"
        raise InvalidRequest(
            f"event_id: this trigger reads the event's id from the payload at {pointer!r}, but the payload {reason} "
            f"there: send one of 1 to {LONGEST_EVENT_ID} characters, or the header webhook-id or Idempotency-Key",
            param="event_id",
        )
    return str(value)


def _verify(signing_secret: str, headers: SentHeaders, body: bytes) -> None:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    sent = dict(zip(names, (headers.webhook_id, headers.webhook_timestamp, headers.webhook_signature), strict=True))
    missing = [name for name, value in sent.items() if not value]
    if missing:
        raise Unauthenticated(
            f"this trigger's payloads are signed (Standard Webhooks): {', '.join(missing)} missing", param=missing[0]
        )
    try:
        Webhook(signing_secret).verify(body, {name: value or "" for name, value in sent.items()}, json_parse=False)
    # ValueError: the header is not base64, has no version, or is not UTF-8.
    except (WebhookVerificationError, ValueError) as error:
        about = str(error) if isinstance(error, WebhookVerificationError) else "the signature is malformed"
        raise Unauthenticated(
            f"the signature is not valid: {about}; it must be for this body, made with the trigger's secret, less "
            "than five minutes old",
            param="webhook-signature",
        ) from None
