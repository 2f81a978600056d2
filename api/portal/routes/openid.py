"""Sign-in of people with an account of the operator's OpenID Connect provider, and what the provider calls."""

import re
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, RedirectResponse, Response

from api.dependencies import State
from api.portal.rendering import address_of
from api.portal.routes.sign_in import HOME, LONGEST_ADDRESS, OPENID, own_path, sign_in_page
from api.portal.session import COOKIE, Posted, remember
from api.process.proxies import client_address
from api.state import ApiState
from core.database import transaction
from core.service.teams import people, sessions
from core.service.teams.openid import pending as pending_sign_ins
from core.service.teams.openid.pending import PENDING_SECONDS, PendingSignIn
from core.service.teams.openid.provider import Provider, ProviderAccount, seal_id_token
from core.service.teams.openid.roles import roles_of
from core.service.teams.openid.tokens import SKEW_SECONDS
from core.service.teams.sessions import ProviderSession
from core.service.teams.used_tokens import use_once
from secateur_wire.errors import NotFound, Unauthenticated, Unavailable

router = APIRouter()

_CALLBACK = f"{OPENID}/callback"
_PENDING_COOKIE = "secateur_pending_"
"""Beginning of the names of cookies with sign-ins on their way, so that several tabs can sign in at once."""
_STATE = re.compile(r"[A-Za-z0-9_-]{20,100}")
_NO_TEAM = "your account belongs to no team here: ask your operator"
_SILENT_REFUSALS = ("login_required", "interaction_required", "consent_required", "account_selection_required")
"""Answers of a provider that was to ask nothing, and has to ask."""

log = structlog.get_logger()


class AuthorizationResponse(BaseModel):
    """Parameters that the provider sends a browser back with: a code, or the reason why there is none."""

    code: Annotated[str | None, Field(max_length=4000)] = None
    state: Annotated[str, Field(max_length=200)] = ""
    iss: Annotated[str | None, Field(max_length=2000)] = None
    error: Annotated[str | None, Field(max_length=200)] = None
    error_description: Annotated[str, Field(max_length=2000)] = ""

    @property
    def reason(self) -> str:
        """Return why there is no code, in the provider's words."""
        if self.error is None:
            return "it sent no code"
        return f"{self.error}: {self.error_description[:300]}" if self.error_description else self.error


@router.get("/sign-in/oidc")
def begin(
    request: Request,
    state: State,
    then: Annotated[str, Query(max_length=LONGEST_ADDRESS)] = HOME,
    silent: bool = False,
    again: bool = False,
) -> Response:
    """Lead to the provider, which leads back to the callback.

    With `silent` the provider asks the person nothing, with `again` who it is.
    """
    provider = _provider_of(state)
    pending = pending_sign_ins.begin(f"{address_of(request)}{_CALLBACK}", own_path(then), is_silent=silent)
    try:
        address = provider.authorization_url(pending, asks_again=again)
    except (Unauthenticated, Unavailable) as error:
        return sign_in_page(request, own_path(then), openid_error=error.message)
    response = RedirectResponse(address, 303)
    response.set_cookie(
        _cookie_of(pending.state),
        pending_sign_ins.seal(pending, state.secret),
        max_age=PENDING_SECONDS,
        path=OPENID,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return response


@router.get("/sign-in/oidc/callback")
def complete(request: Request, state: State, answer: Annotated[AuthorizationResponse, Query()]) -> Response:
    """Check the provider's answer, make a new session, and lead on to the page that was asked for."""
    provider, then = _provider_of(state), HOME
    cookie = _cookie_of(answer.state)
    try:
        pending = pending_sign_ins.unseal(request.cookies.get(cookie), state.secret, answer.state)
        then = pending.then
        provider.check_issuer(answer.iss)
        if pending.is_silent and answer.error in _SILENT_REFUSALS:
            response = sign_in_page(request, then)
        elif answer.error is not None or answer.code is None:
            raise Unauthenticated(f"the provider refused the sign-in ({answer.reason})")
        else:
            response = _start_session(request, state, provider.redeem(answer.code, pending), pending)
    except (Unauthenticated, Unavailable) as refusal:
        log.info("a sign-in was refused", reason=refusal.message)
        state.rates.count_failure(client_address(request))
        response = sign_in_page(request, then, openid_error=refusal.message)
    response.delete_cookie(cookie, path=OPENID, httponly=True, samesite="lax")
    return response


@router.post("/oidc/back-channel-logout")
async def end_sessions(request: Request, state: State, posted: Posted) -> Response:
    """End the sessions that a logout token of the provider names (OpenID Connect Back-Channel Logout)."""
    try:
        await run_in_threadpool(_end_sessions, state, posted.get("logout_token"))
    except Unauthenticated as refusal:
        log.info("a logout token was refused", reason=refusal.message)
        state.rates.count_failure(client_address(request))
        return JSONResponse({"error": "invalid_request", "error_description": refusal.message}, 400)
    return Response(status_code=200)


def _start_session(request: Request, state: ApiState, account: ProviderAccount, pending: PendingSignIn) -> Response:
    provider, settings = _provider_of(state), state.settings
    roles = roles_of(account.claims, settings)
    provider_session = ProviderSession(account.provider_session, seal_id_token(account.id_token, state.secret))
    with transaction(state.sessions) as session:
        principal = people.provision(session, provider.issuer, account, roles)
        if principal is not None:
            sessions.discard(session, request.cookies.get(COOKIE, ""), state.secret)
            seconds = settings.oidc_session_seconds
            token = sessions.sign_in(
                session, principal, state.secret, seconds=seconds, provider_session=provider_session
            )
    if principal is None:
        raise Unauthenticated(_NO_TEAM)
    response = RedirectResponse(pending.then, 303)
    remember(response, request, token, seconds, is_person=True)
    return response


def _end_sessions(state: ApiState, token: str) -> None:
    provider = _provider_of(state)
    claims = provider.logout_claims(token)
    with transaction(state.sessions) as session:
        kept_seconds = max(0, claims["exp"] - claims["iat"]) + 2 * SKEW_SECONDS
        if not use_once(session, provider.issuer, claims["jti"], seconds=kept_seconds):
            raise Unauthenticated("the logout token was used already")
        sessions.end_provider_sessions(
            session, provider.issuer, subject=claims.get("sub"), provider_session=claims.get("sid")
        )


def _provider_of(state: ApiState) -> Provider:
    if state.openid is None:
        raise NotFound("people sign in with API keys here: the operator has set no SECATEUR_OIDC_ISSUER")
    return state.openid


def _cookie_of(state: str) -> str:
    return f"{_PENDING_COOKIE}{state[:16] if _STATE.fullmatch(state) else 'none'}"
