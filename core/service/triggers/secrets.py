"""Secrets of a trigger: the token in its URL, the signing secret, and the hub's secret."""

import base64
import hmac
import secrets

from core.service.teams.sealing import SecretCipher
from core.service.teams.tokens import digest_of

_PURPOSE = "trigger secret"
_BYTES = 32
SIGNING_PREFIX = "whsec_"


def new_token() -> str:
    return f"hook_{secrets.token_urlsafe(_BYTES)}"


def new_hub_secret() -> str:
    return f"hub_{secrets.token_urlsafe(_BYTES)}"


def new_signing_secret() -> str:
    """Return a new signing secret in the form of Standard Webhooks."""
    return SIGNING_PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def digest(text: str, secret: bytes) -> bytes:
    """Return the stored digest of a token or of the hub's secret; neither can be recovered from it."""
    return digest_of(text, secret)


def is_digest_of(kept: bytes, text: str, secret: bytes) -> bool:
    return hmac.compare_digest(kept, digest_of(text, secret))


def seal(signing_secret: str, secret: bytes) -> bytes:
    return SecretCipher(secret, _PURPOSE).seal(signing_secret)


def unseal(sealed: bytes, secret: bytes) -> str:
    return SecretCipher(secret, _PURPOSE).open(sealed)
