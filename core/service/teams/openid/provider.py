"""Provider of OpenID Connect: its endpoints, its keys, and the requests that a sign-in makes to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from core.http.outbound import post
from core.service.teams.openid.issuer import (
    ANYWHERE,
    LIMITS,
    IssuerMetadata,
    Remembered,
    call,
    discover,
    issuer_slot,
    json_object,
    read_json,
)
from core.service.teams.openid.pending import PendingSignIn
from core.service.teams.openid.tokens import SigningKeys, TokenVerifier
from core.service.teams.sealing import SecretCipher
from core.settings import Settings
from secateur_wire.errors import Unauthenticated, Unavailable

METADATA_SECONDS: Final = 3600.0
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded;charset=UTF-8", "Accept": "application/json"}
_LONGEST_REASON: Final = 300
_ID_TOKEN: Final = "ID token of a session"
_LONGEST_SUBJECT: Final = 255


class ProviderMetadata(IssuerMetadata):
    """Description that a provider gives of itself (OpenID Connect Discovery, 3), as far as a sign-in uses it."""

    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    token_endpoint_auth_methods_supported: Sequence[str] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


@dataclass(frozen=True)
class ProviderAccount:
    """Account that signed in: its claims, and the ID token that the provider asks for at the end."""

    subject: str
    claims: Mapping[str, Any]
    id_token: str

    @property
    def name(self) -> str:
        """Return the name that people know the account by; the subject where the provider gives none."""
        named = (self.claims.get(each) for each in ("name", "preferred_username", "email"))
        return next((each[:200] for each in named if isinstance(each, str) and each.strip()), self.subject)

    @property
    def email(self) -> str | None:
        email = self.claims.get("email")
        return email[:300] if isinstance(email, str) else None

    @property
    def provider_session(self) -> str | None:
        """Return the provider's id of the session (`sid`)."""
        session = self.claims.get("sid")
        return session if isinstance(session, str) else None


class Provider:
    """The provider of the settings. Nothing is asked of it before the first sign-in."""

    def __init__(self, settings: Settings) -> None:
        assert settings.oidc_issuer is not None and settings.oidc_client_id is not None
        self.issuer = settings.oidc_issuer
        self._settings = settings
        self._client_id = settings.oidc_client_id
        secret = settings.oidc_client_secret
        self._secret = None if secret is None else secret.get_secret_value()
        keys = SigningKeys(lambda: read_json(self.metadata().jwks_uri, "list of keys"))
        self._tokens = TokenVerifier(keys, issuer=self.issuer, client_id=self._client_id)
        self._metadata = Remembered(lambda: discover(self.issuer, ProviderMetadata), METADATA_SECONDS)

    @property
    def host(self) -> str:
        """Return the provider's host, by which its users know it."""
        return urlsplit(self.issuer).netloc

    def metadata(self) -> ProviderMetadata:
        """Return the provider's endpoints, read at most once in an hour. Raises Unauthenticated."""
        return self._metadata.get()

    def authorization_url(self, pending: PendingSignIn, *, asks_again: bool) -> str:
        """Return the address at the provider that a sign-in begins at.

        `asks_again` has the provider ask who it is, even where it knows: for another account.
        """
        prompt = {"prompt": "none"} if pending.is_silent else {"prompt": "login"} if asks_again else {}
        address: str = prepare_grant_uri(
            self.metadata().authorization_endpoint,
            client_id=self._client_id,
            response_type="code",
            redirect_uri=pending.redirect_uri,
            scope=self._settings.oidc_scopes,
            state=pending.state,
            nonce=pending.nonce,
            code_challenge=create_s256_code_challenge(pending.verifier),
            code_challenge_method="S256",
            **prompt,
        )
        return address

    def check_issuer(self, issuer: str | None) -> None:
        """Require that an answer is this provider's (RFC 9207). Raises Unauthenticated for a mixed-up one."""
        if issuer is None and not self.metadata().authorization_response_iss_parameter_supported:
            return
        if issuer != self.issuer:
            raise Unauthenticated(
                "the answer comes from another provider than the one that was asked (its iss differs)"
            )

    def redeem(self, code: str, pending: PendingSignIn) -> ProviderAccount:
        """Return the account that a code stands for.

        Raises Unauthenticated, naming what is wrong, and Unavailable where many wait for the provider.
        """
        with issuer_slot():
            answer = self._redeem_code(code, pending)
        id_token, access_token = answer.get("id_token"), answer.get("access_token")
        if not isinstance(id_token, str):
            raise Unauthenticated("the provider's answer has no ID token: is openid among the client's scopes?")
        access_token = access_token if isinstance(access_token, str) else None
        claims = self._tokens.id_token_claims(id_token, nonce=pending.nonce, access_token=access_token)
        if self._settings.oidc_claim not in claims and access_token is not None:
            with issuer_slot():
                claims = {**self._user_information(access_token, claims["sub"]), **claims}
        if len(claims["sub"]) > _LONGEST_SUBJECT or any("\0" in str(each) for each in claims.values()):
            raise Unauthenticated("the provider's claims cannot be stored: the subject is too long, or one has a NUL")
        return ProviderAccount(claims["sub"], claims, id_token)

    def logout_claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a logout token of this provider. Raises Unauthenticated."""
        return self._tokens.logout_token_claims(token)

    def end_session_url(self, id_token: str | None, then: str) -> str | None:
        """Return the address at which a person signs out of the provider too; None where it has none, or is away."""
        try:
            endpoint = self.metadata().end_session_endpoint
        except (Unauthenticated, Unavailable):
            return None
        if endpoint is None:
            return None
        hint = {} if id_token is None else {"id_token_hint": id_token}
        query = urlencode({**hint, "client_id": self._client_id, "post_logout_redirect_uri": then})
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    def _redeem_code(self, code: str, pending: PendingSignIn) -> dict[str, Any]:
        endpoint = self.metadata().token_endpoint
        body = prepare_token_request(
            "authorization_code", code=code, redirect_uri=pending.redirect_uri, code_verifier=pending.verifier
        )
        methods = self.metadata().token_endpoint_auth_methods_supported
        named = "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
        auth = ClientAuth(self._client_id, self._secret, "none" if self._secret is None else named)
        address, headers, body = auth.prepare("POST", endpoint, dict(_FORM), body)
        answer = call(lambda: post(address, body.encode(), headers, ANYWHERE, LIMITS))
        content = json_object(answer)
        if answer.status == 200 and content is not None:
            return content
        error = str((content or {}).get("error", f"HTTP {answer.status}"))[:_LONGEST_REASON]
        if error == "invalid_grant":
            raise Unauthenticated("the provider refused the code: it was used already, or is too old (invalid_grant)")
        raise Unauthenticated(f"the provider refused the code ({error}): tell your operator")

    def _user_information(self, access_token: str, subject: str) -> dict[str, Any]:
        endpoint = self.metadata().userinfo_endpoint
        if endpoint is None:
            return {}
        claims = read_json(endpoint, "user information", {"Authorization": f"Bearer {access_token}"})
        if claims.get("sub") != subject:
            raise Unauthenticated("the provider's user information is about another account than its token")
        return claims


def seal_id_token(id_token: str, secret: bytes) -> bytes:
    """Return the encrypted ID token, which a session keeps for the sign-out."""
    return SecretCipher(secret, _ID_TOKEN).seal(id_token)


def id_token_of(sealed: bytes, secret: bytes) -> str | None:
    """Return the ID token of a session; None where it was encrypted with another secret."""
    try:
        return SecretCipher(secret, _ID_TOKEN).open(sealed)
    except ValueError:
        return None
