"""Secrets of endpoints, and the signature headers of a delivery: Standard Webhooks, by its own library.

While a rotated secret is still valid, both secrets sign: a receiver accepts any signature that one of its secrets
verifies.
"""

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from standardwebhooks import Webhook

PURPOSE: Final = "webhook secret"
"""Purpose of the encryption of secrets."""
_SECRET_BYTES: Final = 32


def new_secret() -> str:
    """Return `whsec_` and 32 random bytes as base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed_headers(delivery_id: str, moment: datetime, payload: str, signing: Sequence[str]) -> dict[str, str]:
    """Return the signed headers; `moment` is the time of this attempt in UTC: a receiver refuses old signatures."""
    signatures = [Webhook(secret).sign(msg_id=delivery_id, timestamp=moment, data=payload) for secret in signing]
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
