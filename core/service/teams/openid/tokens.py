"""Signed tokens of the provider: the ID token of a sign-in, and the logout token of the back channel."""

import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final

from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import ClaimError, ExpiredTokenError, InvalidKeyIdError, JoseError, MissingClaimError
from joserfc.jwk import Key, KeySet

from core.service.teams.openid.issuer import Remembered
from core.untrusted_json import JsonLimits, parse_json
from secateur_wire.errors import Unauthenticated

ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
"""Accepted signatures: with a public key alone. `none` and those with a shared secret are not among them."""
SKEW_SECONDS: Final = 60
"""Accepted difference between the provider's clock and this one."""
KEYS_SECONDS: Final = 3600.0
"""Time after which the provider's keys are read anew, so that one it withdrew is not accepted for ever."""
REREAD_SECONDS: Final = 60.0
"""Least time between two reads because of an unknown key: tokens of strangers cause no more requests than that."""
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_LOGOUT_TYPES: Final = (None, "JWT", "logout+jwt")
_SECRET_KEYS: Final = ("oct",)
_TOKEN_LIMITS: Final = JsonLimits(values=2000, levels=16)
"""Limits of each part of a token: some providers list hundreds of groups."""

_WRONG: Final[Mapping[str, str]] = {
    "iss": "the token was issued by another provider",
    "aud": "the token was issued for another service (its audience is not our client)",
    "azp": "the token was issued for another service (its authorized party is not our client)",
    "nonce": "the token belongs to another sign-in (its nonce differs)",
    "at_hash": "the token does not belong to the access token that came with it",
    "iat": "the token was issued in the future: is a clock wrong?",
    "nbf": "the token is not valid yet: is a clock wrong?",
}


class SigningKeys:
    """Public keys of the provider, in memory for KEYS_SECONDS. `fetch` returns its JSON Web Key Set."""

    def __init__(self, fetch: Callable[[], Mapping[str, Any]], clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = Remembered(lambda: _public_keys(fetch()), KEYS_SECONDS, clock)

    def find(self, key_id: str | None, algorithm: str) -> Key:
        """Return the key that a token names. Where it is unknown, the keys are read anew, at most once a minute.

        Raises Unauthenticated.
        """
        for at_most in (KEYS_SECONDS, REREAD_SECONDS):
            try:
                return self._keys.get(at_most=at_most).get_by_kid(key_id, {"use": "sig", "alg": algorithm})
            except InvalidKeyIdError:
                continue
        raise Unauthenticated("the token is signed with a key that the provider does not publish")


def _public_keys(listed: Mapping[str, Any]) -> KeySet:
    try:
        public = [each for each in listed["keys"] if each["kty"] not in _SECRET_KEYS]
        return KeySet.import_key_set({"keys": public})
    except (JoseError, KeyError, TypeError, ValueError):
        raise Unauthenticated("the provider's list of keys cannot be read") from None


class TokenVerifier:
    """Checks of the tokens that a provider, the `issuer`, signs for this service, its client `client_id`."""

    def __init__(self, keys: SigningKeys, *, issuer: str, client_id: str) -> None:
        self._keys = keys
        self._client_id = client_id
        self._expected: dict[str, Any] = {
            "iss": {"essential": True, "value": issuer},
            "aud": {"essential": True, "value": client_id},
        }

    def id_token_claims(self, token: str, *, nonce: str, access_token: str | None) -> dict[str, Any]:
        """Return the claims of an ID token (OpenID Connect Core, 3.1.3.7).

        Raises Unauthenticated, naming what is wrong.
        """
        header, claims = signed_claims(token, self._keys)
        options = {**self._expected, "sub": {"essential": True}}
        parameters = {"nonce": nonce, "client_id": self._client_id, "access_token": access_token}
        try:
            CodeIDToken(claims, header, options, parameters).validate(leeway=SKEW_SECONDS)
        except JoseError as error:
            raise Unauthenticated(reason_of(error)) from None
        return claims

    def logout_token_claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a logout token (OpenID Connect Back-Channel Logout, 2.6). Raises Unauthenticated."""
        header, claims = signed_claims(token, self._keys)
        if header.get("typ") not in _LOGOUT_TYPES:
            raise Unauthenticated(f"this is no logout token: its type is {header.get('typ')!r}")
        needed: dict[str, Any] = {name: {"essential": True} for name in ("iat", "exp", "jti", "events")}
        try:
            jwt.JWTClaimsRegistry(leeway=SKEW_SECONDS, **self._expected, **needed).validate(claims)
        except JoseError as error:
            raise Unauthenticated(reason_of(error)) from None
        events = claims["events"]
        if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
            raise Unauthenticated("this is no logout token: it tells of no logout")
        if "nonce" in claims:
            raise Unauthenticated("this is no logout token: it has a nonce")
        named = [claims.get(name) for name in ("sub", "sid")]
        if all(each is None for each in named) or not all(each is None or isinstance(each, str) for each in named):
            raise Unauthenticated("the logout token names neither a subject nor a session")
        return claims


def read_token(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token as anybody may have written them: nothing of it is proved.

    Raises Unauthenticated where it is no token, has many values, or is nested deep.
    """
    try:
        header, claims, _ = token.encode().split(b".")
        parts = [parse_json(urlsafe_b64decode(part + b"==="), _TOKEN_LIMITS) for part in (header, claims)]
    except ValueError:
        raise Unauthenticated("this is no signed token (JWT)") from None
    if not all(isinstance(part, dict) for part in parts):
        raise Unauthenticated("this is no signed token (JWT)")
    return parts[0], parts[1]


def signed_claims(token: str, keys: SigningKeys) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return header and claims of a token, the signature of which is that of one of the provider's keys."""
    header, _ = read_token(token)  # joserfc parses it without limits
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise Unauthenticated(
            f"the token is signed with the algorithm {str(algorithm)[:20]!r}, which is not accepted: it must be one of "
            + ", ".join(ALGORITHMS)
        )
    key = keys.find(key_id if isinstance(key_id, str) else None, algorithm)
    try:
        decoded = jwt.decode(token, key, algorithms=ALGORITHMS)
    except (JoseError, ValueError):
        raise Unauthenticated("the signature of the token is wrong") from None
    return decoded.header, decoded.claims


def reason_of(error: JoseError) -> str:
    """Return in plain words what is wrong with the claims of a token."""
    match error:
        case ExpiredTokenError():
            return "the token has expired: is a clock wrong?"
        case MissingClaimError():
            return f"the token lacks the claim {error.claim}"
        case ClaimError():
            return _WRONG.get(error.claim, f"the token's claim {error.claim} is not valid")
    return "the token's claims are not valid"
