"""Sign-in on its way: what a browser keeps in a sealed cookie while its user is at the provider."""

import secrets
import time
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from core.service.teams.sealing import SecretCipher
from secateur_wire.errors import Unauthenticated

PENDING_SECONDS = 600
"""Time that a person has at the provider."""
_PURPOSE = "sign-in on its way"


@dataclass(frozen=True)
class PendingSignIn:
    """Values of one sign-in that the answer of the provider is compared with.

    `state` comes back with the answer, `nonce` in the ID token, and `verifier` proves that the browser that began ends
    it (PKCE, RFC 7636). `then` is the page to go on to. `is_silent` where the provider was to ask nothing.
    """

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    then: str
    is_silent: bool
    expires_at: float


def begin(redirect_uri: str, then: str, *, is_silent: bool) -> PendingSignIn:
    """Return a sign-in with new random values."""
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    return PendingSignIn(state, nonce, verifier, redirect_uri, then, is_silent, time.time() + PENDING_SECONDS)


def seal(pending: PendingSignIn, secret: bytes) -> str:
    """Return the value of the cookie: only this service can read or make it."""
    return SecretCipher(secret, _PURPOSE).seal(_PENDING.dump_json(pending).decode()).decode()


def unseal(sealed: str | None, secret: bytes, state: str) -> PendingSignIn:
    """Return the sign-in that a cookie holds. Raises Unauthenticated where it is another, is over, or is not ours."""
    if not sealed:
        raise Unauthenticated(
            "this sign-in was completed already, took too long, or was begun in another browser: sign in once more"
        )
    try:
        pending = _PENDING.validate_json(SecretCipher(secret, _PURPOSE).open(sealed.encode()))
    except (ValueError, ValidationError):
        raise Unauthenticated("this sign-in was not begun here: sign in once more") from None
    if not secrets.compare_digest(pending.state.encode(), state.encode()):
        raise Unauthenticated("the answer belongs to another sign-in (its state differs): sign in once more")
    if pending.expires_at < time.time():
        raise Unauthenticated(f"the sign-in took longer than {PENDING_SECONDS // 60} minutes: sign in once more")
    return pending


_PENDING = TypeAdapter(PendingSignIn)
