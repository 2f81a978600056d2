"""API keys: created, listed, revoked, and asked who somebody is."""

import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from core.database import new_id
from core.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from core.pages import Page, read_page
from core.teams.schemas import CreatedKey, Key, Role
from core.teams.tables import ApiKeyRow
from core.teams.tokens import digest_of, new_token, prefix_of

_RANK: dict[Role, int] = {"viewer": 0, "member": 1, "admin": 2}


@dataclass(frozen=True)
class Principal:
    """Who a request acts for."""

    team_id: str
    key_id: str
    role: Role

    def require(self, role: Role) -> None:
        """Raises Forbidden unless this key's role is `role` or above."""
        if _RANK[self.role] < _RANK[role]:
            raise Forbidden(f"this needs a key with role {role}; this key's role is {self.role}")


def create_key(
    session: Session, team_id: str, *, role: Role, name: str, expires_at: datetime | None, secret: bytes
) -> CreatedKey:
    """A new key of a team, its plaintext in `key` this once. Raises InvalidRequest where it would be born expired."""
    now: datetime = session.scalar(select(func.clock_timestamp()))  # type: ignore[assignment]
    if expires_at is not None and expires_at <= now:
        raise InvalidRequest("expires_at lies in the past", param="expires_at")
    token = new_token()
    prefix = prefix_of(token)
    assert prefix is not None
    row = ApiKeyRow(
        id=new_id("key"),
        team_id=team_id,
        name=name,
        role=role,
        prefix=prefix,
        digest=digest_of(token, secret),
        created_at=now,
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    return CreatedKey(**key_answer(row).model_dump(), key=token)


def authenticate(session: Session, token: str, secret: bytes) -> Principal:
    """The principal of a token; raises Unauthenticated saying whether it is unknown, revoked or expired."""
    prefix = prefix_of(token)
    if prefix is None:
        raise Unauthenticated("this is not an API key of Secateur: keys start with sct_ and end in a checksum")
    found = session.execute(
        select(ApiKeyRow, (ApiKeyRow.expires_at <= func.clock_timestamp()).label("expired")).where(
            ApiKeyRow.prefix == prefix
        )
    ).one_or_none()
    if found is None or not hmac.compare_digest(found[0].digest, digest_of(token, secret)):
        raise Unauthenticated("this API key is not known")
    row, expired = found
    if row.revoked_at is not None:
        raise Unauthenticated("this API key was revoked")
    if expired:
        raise Unauthenticated(f"this API key expired at {row.expires_at}")
    _note_use(session, row.id)
    return Principal(team_id=row.team_id, key_id=row.id, role=cast(Role, row.role))


def _note_use(session: Session, key_id: str) -> None:
    """At most one write a minute, and none that waits for another request with the same key."""
    due = (
        select(ApiKeyRow.id)
        .where(
            ApiKeyRow.id == key_id,
            ApiKeyRow.last_used_at.is_(None)
            | (ApiKeyRow.last_used_at < func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 1)),
        )
        .with_for_update(skip_locked=True)
    )
    session.execute(
        update(ApiKeyRow).where(ApiKeyRow.id.in_(due)).values(last_used_at=func.clock_timestamp()),
        execution_options={"synchronize_session": False},
    )


def list_keys(session: Session, team_id: str, *, limit: int, after: str | None) -> Page[Key]:
    """The team's keys, newest first, revoked ones included."""
    query = select(ApiKeyRow).where(ApiKeyRow.team_id == team_id)
    return read_page(session, query, ApiKeyRow, limit=limit, after=after, answer=key_answer)


def revoke_key(session: Session, team_id: str, key_id: str) -> Key:
    """Revoke a key for good; a revoked key stays as it is. Raises NotFound."""
    row = session.scalar(
        select(ApiKeyRow).where(ApiKeyRow.id == key_id, ApiKeyRow.team_id == team_id).with_for_update()
    )
    if row is None:
        raise NotFound(f"there is no key {key_id!r}")
    if row.revoked_at is None:
        row.revoked_at = session.scalar(select(func.clock_timestamp()))
        session.flush()
    return key_answer(row)


def key_answer(row: ApiKeyRow) -> Key:
    return Key(
        id=row.id,
        object="key",
        name=row.name,
        role=cast(Role, row.role),
        prefix=row.prefix,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
