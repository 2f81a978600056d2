"""Sessions of the portal: a browser acts for the API key or as the person that signed in, until one of them ends.

The browser has a random token, and the database its HMAC. The rights of a session are those of its key, or those of its
person in the chosen team, which are checked at every request. So the sessions of a revoked or expired key end too, and
those of a person who left the team.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from core.database import seconds_from_now
from core.service.teams import audit
from core.service.teams.principal import Automation, Principal
from core.service.teams.tables import ApiKeyRow, MembershipRow, PersonRow, PortalSessionRow, TeamRow
from secateur_wire.errors import NotFound, Unauthenticated
from secateur_wire.teams import Role

_REMOVED_AT_ONCE = 1000
"""Expired sessions that one sign-in removes."""


@dataclass(frozen=True)
class TeamOfPerson:
    """Team that a person may act for."""

    id: str
    name: str


@dataclass(frozen=True)
class BrowserSession:
    """Principal of a browser session, with the names of its key or person and of its team.

    `teams` are all teams of a person by name; a key has none but its own.
    """

    principal: Principal
    name: str
    team_name: str
    teams: Sequence[TeamOfPerson] = ()


@dataclass(frozen=True)
class ProviderSession:
    """The provider's id of a session (`sid`), None where it gives none, and the encrypted ID token."""

    id: str | None
    sealed_id_token: bytes


def sign_in(
    session: Session,
    principal: Principal,
    secret: bytes,
    *,
    seconds: float,
    provider_session: ProviderSession | None = None,
) -> str:
    """Return the token of a new session of a key or a person, valid for so many seconds."""
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
        digest=_digest(session_token, secret),
        key_id=principal.key_id,
        person_id=principal.person_id,
        team_id=principal.team_id if principal.person_id else None,
        provider_session=provider_session.id if provider_session else None,
        sealed_id_token=provider_session.sealed_id_token if provider_session else None,
        expires_at=seconds_from_now(seconds),
    )
    session.add(row)
    session.flush()
    audit.note(session, principal, "session.start", principal.id)
    return session_token


_is_valid_key = and_(
    ApiKeyRow.revoked_at.is_(None),
    or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > func.clock_timestamp()),
)
_is_membership = and_(
    MembershipRow.person_id == PortalSessionRow.person_id, MembershipRow.team_id == PortalSessionRow.team_id
)


def signed_in(session: Session, session_token: str, secret: bytes) -> BrowserSession:
    """Return the principal of a session; raises Unauthenticated where the session, its key or membership has ended."""
    match = session.execute(
        select(ApiKeyRow, PersonRow, MembershipRow, TeamRow.name)
        .select_from(PortalSessionRow)
        .outerjoin(ApiKeyRow, and_(ApiKeyRow.id == PortalSessionRow.key_id, _is_valid_key))
        .outerjoin(MembershipRow, _is_membership)
        .outerjoin(PersonRow, PersonRow.id == MembershipRow.person_id)
        .join(TeamRow, TeamRow.id == func.coalesce(ApiKeyRow.team_id, MembershipRow.team_id))
        .where(
            PortalSessionRow.digest == _digest(session_token, secret),
            PortalSessionRow.expires_at > func.clock_timestamp(),
        )
    ).one_or_none()
    if match is None:
        raise Unauthenticated("you are signed out: sign in again")
    key, person, membership, team_name = match
    if key is not None:
        return BrowserSession(Principal(key.team_id, key.id, cast(Role, key.role)), key.name, team_name)
    principal = Principal(membership.team_id, None, cast(Role, membership.role), person.id)
    return BrowserSession(principal, person.name, team_name, _teams_of(session, person.id))


def _teams_of(session: Session, person_id: str) -> list[TeamOfPerson]:
    query = select(TeamRow.id, TeamRow.name).join(MembershipRow, MembershipRow.team_id == TeamRow.id)
    rows = session.execute(query.where(MembershipRow.person_id == person_id).order_by(TeamRow.name))
    return [TeamOfPerson(row.id, row.name) for row in rows]


def choose_team(session: Session, caller: Principal, team_id: str, session_token: str, secret: bytes) -> None:
    """Let a person's session act for another team of the person. Raises NotFound."""
    query = select(MembershipRow.role).where(
        MembershipRow.person_id == caller.person_id, MembershipRow.team_id == team_id
    )
    role = session.scalar(query)
    if role is None:
        raise NotFound(f"you have no team {team_id!r}")
    is_this = PortalSessionRow.digest == _digest(session_token, secret)
    session.execute(update(PortalSessionRow).where(is_this).values(team_id=team_id))
    session.execute(update(PersonRow).where(PersonRow.id == caller.person_id).values(team_id=team_id))
    chosen = Principal(team_id, None, cast(Role, role), caller.person_id)
    audit.note(session, chosen, "session.choose_team", chosen.id)


def sign_out(session: Session, caller: Principal, session_token: str, secret: bytes) -> bytes | None:
    """End one session, and return its encrypted ID token if it has one. Idempotent."""
    ended = session.execute(
        delete(PortalSessionRow)
        .where(PortalSessionRow.digest == _digest(session_token, secret))
        .returning(PortalSessionRow.sealed_id_token)
    ).one_or_none()
    if ended is None:
        return None
    audit.note(session, caller, "session.end", caller.id)
    sealed: bytes | None = ended.sealed_id_token
    return sealed


def sign_out_everywhere(session: Session, caller: Principal) -> None:
    """End every session of the caller's key or person."""
    is_own = (
        PortalSessionRow.key_id == caller.key_id
        if caller.person_id is None
        else PortalSessionRow.person_id == caller.person_id
    )
    session.execute(delete(PortalSessionRow).where(is_own))
    audit.note(session, caller, "session.end_all", caller.id)


def discard(session: Session, session_token: str, secret: bytes) -> None:
    """End the session that a browser had before it signed in anew."""
    session.execute(delete(PortalSessionRow).where(PortalSessionRow.digest == _digest(session_token, secret)))


def end_provider_sessions(session: Session, issuer: str, *, subject: str | None, provider_session: str | None) -> int:
    """End the sessions of a provider's session or, if that is None, all of a subject; return their number."""
    query = (
        select(PortalSessionRow.digest, PortalSessionRow.person_id, PortalSessionRow.team_id)
        .join(PersonRow, PersonRow.id == PortalSessionRow.person_id)
        .where(PersonRow.issuer == issuer)
    )
    if subject is not None:
        query = query.where(PersonRow.subject == subject)
    if provider_session is not None:
        query = query.where(PortalSessionRow.provider_session == provider_session)
    rows = session.execute(query.with_for_update(of=PortalSessionRow)).all()
    session.execute(delete(PortalSessionRow).where(PortalSessionRow.digest.in_([row.digest for row in rows])))
    for row in rows:
        assert row.team_id is not None
        provider = Automation(row.team_id, "identity-provider")
        audit.note(session, provider, "session.end", row.person_id)
    return len(rows)


def form_token(session_token: str, secret: bytes) -> str:
    """Return the token that every form of a session carries, and that no other site can know (CSRF)."""
    return hmac.new(secret, f"form\0{session_token}".encode(), hashlib.sha256).hexdigest()


def _digest(session_token: str, secret: bytes) -> bytes:
    return hmac.new(secret, f"session\0{session_token}".encode(), hashlib.sha256).digest()
