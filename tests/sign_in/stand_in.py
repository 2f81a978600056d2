"""A provider that answers as a test tells it to: with tokens that no honest provider would give."""

import time
from dataclasses import dataclass, field
from typing import Any

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

CLIENT = "secateur"


def new_key(key_id: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": key_id, "use": "sig", "alg": "RS256"})


_KEY = new_key("first")


@dataclass
class StandIn:
    """Endpoints of a provider. `id_token` is what the next code is exchanged for."""

    issuer: str = ""
    keys: list[RSAKey] = field(default_factory=lambda: [_KEY])
    id_token: str = ""
    token_error: tuple[int, dict[str, str]] | None = None
    description: dict[str, Any] = field(default_factory=dict)
    user_information: dict[str, Any] = field(default_factory=dict)
    run_claims: dict[str, Any] = field(default_factory=dict)
    reads_of_keys: int = 0
    token_requests: list[dict[str, str]] = field(default_factory=list)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a valid ID token, with changes; a claim of None is left out."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": "ada",
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "name": "Ada",
            "email": "ada@example.com",
            "groups": ["research"],
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, claims: dict[str, Any], key: RSAKey | None = None, **header: Any) -> str:
        """Return a token signed with a key, by default the published one."""
        signing = key or self.keys[0]
        return jwt.encode({"alg": "RS256", "kid": signing.kid, **header}, claims, signing)

    def sign_with_secret(self, claims: dict[str, Any], secret: str) -> str:
        return jwt.encode({"alg": "HS256", "kid": self.keys[0].kid}, claims, OctKey.import_key(secret))

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._describe),
                Route("/keys", self._list_keys),
                Route("/token", self._exchange, methods=["POST"]),
                Route("/me", self._inform),
                Route("/run-token", self._identify_run),
            ]
        )

    def _describe(self, request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "userinfo_endpoint": f"{self.issuer}/me",
                **self.description,
            }
        )

    def _list_keys(self, request: Request) -> JSONResponse:
        self.reads_of_keys += 1
        return JSONResponse({"keys": [key.as_dict(private=False) for key in self.keys]})

    async def _exchange(self, request: Request) -> JSONResponse:
        async with request.form() as form:
            self.token_requests.append({name: str(value) for name, value in form.items()})
        if self.token_error is not None:
            status, content = self.token_error
            return JSONResponse(content, status)
        return JSONResponse({"access_token": "opaque", "token_type": "Bearer", "id_token": self.id_token})

    def _identify_run(self, request: Request) -> JSONResponse:
        """Answer as GitHub Actions does: with the token of the run, for the audience that is asked for."""
        assert request.headers["authorization"] == "Bearer of the run" and request.query_params["api-version"] == "2.0"
        return JSONResponse({"value": self.sign({**self.run_claims, "aud": request.query_params["audience"]})})

    def _inform(self, request: Request) -> JSONResponse:
        return JSONResponse(self.user_information)
