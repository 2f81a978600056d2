"""Sessions of the portal: a browser acts for the API key it signed in with, until it signs out or the key ends.

The browser has a random token, and the database its HMAC. The rights of a session are those of its key, which is
checked at every request. So the sessions of a revoked or expired key end too.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import cast

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from core.database import seconds_from_now
from core.service.teams import audit
from core.service.teams.principal import Principal
from core.service.teams.tables import ApiKeyRow, PortalSessionRow, TeamRow
from secateur_wire.errors import Unauthenticated
from secateur_wire.teams import Role

_REMOVED_AT_ONCE = 1000
"""Expired sessions that one sign-in removes."""


@dataclass(frozen=True)
class BrowserSession:
    """Principal of a browser session, with the names of its key and team."""

    principal: Principal
    key_name: str
    team_name: str


def sign_in(session: Session, principal: Principal, secret: bytes, *, seconds: float) -> str:
    """Return the token of a new session of an API key, valid for so many seconds."""
    past = (
        select(PortalSessionRow.digest)
        .where(PortalSessionRow.expires_at <= func.statement_timestamp())
        .order_by(PortalSessionRow.expires_at)
        .limit(_REMOVED_AT_ONCE)
        .with_for_update(skip_locked=True)
        .cte("past")  # Picked once: PostgreSQL may run a subquery again for each row, and its limit then has no effect.
    )
    session.execute(
        delete(PortalSessionRow)
        .where(PortalSessionRow.digest.in_(select(past.c.digest)))
        .execution_options(synchronize_session=False)
    )
    session_token = secrets.token_urlsafe(32)
    row = PortalSessionRow(
        digest=_digest(session_token, secret), key_id=principal.key_id, expires_at=seconds_from_now(seconds)
    )
    session.add(row)
    session.flush()
    audit.note(session, principal, "session.start", principal.key_id)
    return session_token


def signed_in(session: Session, session_token: str, secret: bytes) -> BrowserSession:
    """Return the principal of a session; raises Unauthenticated where the session or its key has ended."""
    match = session.execute(
        select(ApiKeyRow, TeamRow.name)
        .join(PortalSessionRow, PortalSessionRow.key_id == ApiKeyRow.id)
        .join(TeamRow, TeamRow.id == ApiKeyRow.team_id)
        .where(
            PortalSessionRow.digest == _digest(session_token, secret),
            PortalSessionRow.expires_at > func.clock_timestamp(),
            ApiKeyRow.revoked_at.is_(None),
            or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > func.clock_timestamp()),
        )
    ).one_or_none()
    if match is None:
        raise Unauthenticated("you are signed out: sign in with an API key")
    key, team_name = match
    return BrowserSession(Principal(key.team_id, key.id, cast(Role, key.role)), key.name, team_name)


def sign_out(session: Session, caller: Principal, session_token: str, secret: bytes) -> None:
    """End one session. Idempotent."""
    ended = session.scalar(
        delete(PortalSessionRow)
        .where(PortalSessionRow.digest == _digest(session_token, secret))
        .returning(PortalSessionRow.key_id)
    )
    if ended is not None:
        audit.note(session, caller, "session.end", ended)


def sign_out_everywhere(session: Session, caller: Principal) -> None:
    """End every session of the caller's key."""
    session.execute(delete(PortalSessionRow).where(PortalSessionRow.key_id == caller.key_id))
    audit.note(session, caller, "session.end_all", caller.key_id)


def form_token(session_token: str, secret: bytes) -> str:
    """Return the token that every form of a session carries, and that no other site can know (CSRF)."""
    return hmac.new(secret, f"form\0{session_token}".encode(), hashlib.sha256).hexdigest()


def _digest(session_token: str, secret: bytes) -> bytes:
    return hmac.new(secret, f"session\0{session_token}".encode(), hashlib.sha256).digest()
