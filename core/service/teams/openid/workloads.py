"""Identity tokens of pipelines (GitHub Actions, GitLab CI), each exchanged once for a key of a short life."""

import time
from collections.abc import Mapping
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.teams.keys import create_workload_key
from core.service.teams.openid.issuer import IssuerMetadata, discover, read_json
from core.service.teams.openid.tokens import SKEW_SECONDS, SigningKeys, read_token, reason_of, signed_claims
from core.service.teams.used_tokens import use_once
from core.service.teams.workload_rules import find_rule, team_of_audience
from core.settings import Settings
from secateur_wire.errors import Unauthenticated
from secateur_wire.teams import CreatedKey

_LONGEST_LIFE_SECONDS: Final = 86_400
"""Longest life of a token that is accepted: its id is remembered as long."""
_LONGEST_NAME: Final = 100
_NAMES: Final = (("repository", "run_id"), ("project_path", "job_id"), ("sub", "jti"))
"""Claims that name a pipeline for people."""
_REQUEST_EVENTS: Final = ("pull_request", "merge_request", "external_pull_request")
_REQUEST_REFS: Final = ("refs/pull/", "refs/merge-requests/")


class WorkloadIdentities:
    """Issuers that the operator lists, with their keys. Nothing is asked of one before its first token."""

    def __init__(self, settings: Settings, secret: bytes) -> None:
        self._settings = settings
        self._secret = secret
        self._keys = {issuer: SigningKeys(_keys_of(issuer)) for issuer in settings.workload_issuers}

    def exchange(self, sessions: sessionmaker[Session], token: str) -> CreatedKey:
        """Return a new key of the team that a token is meant for, if a rule of the team admits it.

        Raises Unauthenticated, naming what is wrong, and Unavailable where the issuer is slow.
        """
        claims = self._verified(token)
        team_id = _team_of(claims)
        _refuse_requests(claims)
        issuer, life = claims["iss"], claims["exp"] - time.time()
        if life > _LONGEST_LIFE_SECONDS:
            raise Unauthenticated("the token is valid for more than a day: let the pipeline ask for a shorter one")
        with transaction(sessions) as session:
            rule = find_rule(session, team_id, issuer, claims)
            if rule is None:
                raise Unauthenticated("no rule of this team admits the token's repository, branch or environment")
            if not use_once(session, issuer, claims["jti"], seconds=life + 2 * SKEW_SECONDS):
                raise Unauthenticated("the token was used already: let the pipeline ask for a new one")
            seconds = self._settings.workload_key_seconds
            return create_workload_key(session, rule, _name_of(claims), seconds=seconds, secret=self._secret)

    def _verified(self, token: str) -> dict[str, Any]:
        if not self._keys:
            raise Unauthenticated("the operator admits no tokens of pipelines (SECATEUR_WORKLOAD_ISSUERS)")
        issuer = read_token(token)[1].get("iss")  # believed only once the signature is checked
        if not isinstance(issuer, str):
            raise Unauthenticated("this is no signed token (JWT) that names its issuer")
        keys = self._keys.get(issuer)
        if keys is None:
            raise Unauthenticated(f"the operator admits no tokens of {issuer[:200]!r} (SECATEUR_WORKLOAD_ISSUERS)")
        _, claims = signed_claims(token, keys)
        needed: dict[str, Any] = {name: {"essential": True} for name in ("aud", "sub", "iat", "exp", "jti")}
        registry = jwt.JWTClaimsRegistry(leeway=SKEW_SECONDS, iss={"essential": True, "value": issuer}, **needed)
        try:
            registry.validate(claims)
        except JoseError as error:
            raise Unauthenticated(reason_of(error)) from None
        if any("\0" in str(value) for value in claims.values()) or len(claims["jti"]) > _LONGEST_NAME * 3:
            raise Unauthenticated("the token's claims cannot be stored: its id is too long, or one has a NUL")
        return claims


def _keys_of(issuer: str) -> Any:
    return lambda: read_json(discover(issuer, IssuerMetadata).jwks_uri, "list of keys")


def _team_of(claims: Mapping[str, Any]) -> str:
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    team_id = team_of_audience(audiences[0]) if len(audiences) == 1 else None
    if team_id is None:
        raise Unauthenticated("the token is meant for another service: its audience must be that of the team's rule")
    return team_id


def _refuse_requests(claims: Mapping[str, Any]) -> None:
    """Refuse pipelines of pull and merge requests: the code may be a stranger's, and the token does not tell."""
    event = str(claims.get("event_name") or claims.get("pipeline_source") or "")
    refs = (str(claims.get(name, "")) for name in ("ref", "ref_path"))  # GitLab's `ref` is a name without a path
    if event.startswith(_REQUEST_EVENTS) or any(ref.startswith(_REQUEST_REFS) for ref in refs):
        raise Unauthenticated("pipelines of pull and merge requests are refused: a fork's could be one of them")


def _name_of(claims: Mapping[str, Any]) -> str:
    name, run = next(pair for pair in _NAMES if claims.get(pair[0]) is not None and claims.get(pair[1]) is not None)
    number = f" {claims[run]}"[:_LONGEST_NAME]
    return f"{str(claims[name])[: _LONGEST_NAME - len(number)]}{number}"
