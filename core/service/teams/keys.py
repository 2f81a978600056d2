"""API keys: create, list, rotate, revoke, and authenticate with them."""

import hmac
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import ColumnElement, bindparam, func, or_, select, update
from sqlalchemy.orm import Session

from core.database import new_id, seconds_from_now
from core.pagination import Listing, read_page
from core.service.teams import audit
from core.service.teams.principal import Actor, Automation, Principal, team_of
from core.service.teams.tables import ApiKeyRow, WorkloadRuleRow
from core.service.teams.tokens import digest_of, new_token, prefix_of
from secateur_wire.base import Page
from secateur_wire.errors import Conflict, InvalidRequest, NotFound, Unauthenticated
from secateur_wire.teams import CreatedKey, Key, KeyState, Role


def create_key(
    session: Session, caller: Actor, *, role: Role, name: str, expires_at: datetime | None, secret: bytes
) -> CreatedKey:
    """Create a key of a team; only this answer has its plaintext in `key`.

    Raises InvalidRequest if it is expired already.
    """
    now = _now(session)
    if expires_at is not None and expires_at <= now:
        raise InvalidRequest("expires_at lies in the past", param="expires_at")
    row = ApiKeyRow(team_id=team_of(caller), role=role, name=name, created_at=now, expires_at=expires_at)
    created = _add(session, row, secret)
    audit.note(session, caller, "key.create", created.id, {"name": name, "role": role})
    return created


def create_workload_key(
    session: Session, rule: WorkloadRuleRow, name: str, *, seconds: float, secret: bytes
) -> CreatedKey:
    """Create a key for a pipeline that a rule admits, valid for so many seconds."""
    now = _now(session)
    row = ApiKeyRow(
        team_id=rule.team_id,
        role=rule.role,
        name=name,
        created_at=now,
        expires_at=now + timedelta(seconds=seconds),
        workload_rule_id=rule.id,
    )
    created = _add(session, row, secret)
    audit.note(session, Automation(rule.team_id, f"workload:{rule.id}"), "key.create", created.id, {"name": name})
    return created


def rotate_key(session: Session, caller: Actor, key_id: str, *, grace_seconds: float, secret: bytes) -> CreatedKey:
    """Create a successor of a key with the same name and role, and with the same lifetime if the old one expires.

    The old key stays valid for `grace_seconds`. Raises NotFound, and Conflict where the old key is not valid any more.
    """
    row = _find(session, team_of(caller), key_id)
    now = _now(session)
    state = _state(row, now)
    if state != "active":
        raise Conflict(f"the key is {state}: make a new one instead")
    lives_until = None if row.expires_at is None else now + (row.expires_at - row.created_at)
    successor = ApiKeyRow(
        team_id=row.team_id,
        role=row.role,
        name=row.name,
        created_at=now,
        expires_at=lives_until,
        workload_rule_id=row.workload_rule_id,
    )
    created = _add(session, successor, secret)
    grace_ends = now + timedelta(seconds=grace_seconds)
    row.expires_at = grace_ends if row.expires_at is None else min(row.expires_at, grace_ends)
    session.flush()
    details = {"successor": created.id, "grace_seconds": grace_seconds}
    audit.note(session, caller, "key.rotate", row.id, details)
    return created


def _add(session: Session, row: ApiKeyRow, secret: bytes) -> CreatedKey:
    """Add a key, whose id and token are made here."""
    token = new_token()
    prefix = prefix_of(token)
    assert prefix is not None
    row.id, row.prefix, row.digest = new_id("key"), prefix, digest_of(token, secret)
    session.add(row)
    session.flush()
    return CreatedKey(**key_answer(row, row.created_at).model_dump(), key=token)


def authenticate(session: Session, token: str, secret: bytes) -> Principal:
    """Return the principal of a token; raises Unauthenticated if it is unknown, revoked or expired."""
    prefix = prefix_of(token)
    if prefix is None:
        raise Unauthenticated("this is not an API key of Secateur: keys start with sct_ and end in a checksum")
    match = session.execute(_BY_PREFIX, {"prefix": prefix}).one_or_none()
    if match is None or not hmac.compare_digest(match[0].digest, digest_of(token, secret)):
        raise Unauthenticated("this API key is not known")
    row, expired, due = match
    if row.revoked_at is not None:
        raise Unauthenticated("this API key was revoked")
    if expired:
        raise Unauthenticated(f"this API key expired at {row.expires_at}")
    if due:
        _note_use(session, row.id)
    return Principal(team_id=row.team_id, key_id=row.id, role=cast(Role, row.role))


def owner_of(session: Session, token: str) -> tuple[str, str] | None:
    """Return the team and the id of the key that a refused token's prefix names; None where there is none."""
    prefix = prefix_of(token)
    row = session.execute(select(ApiKeyRow.team_id, ApiKeyRow.id).where(ApiKeyRow.prefix == prefix)).one_or_none()
    return None if row is None else (row.team_id, row.id)


def _use_is_due() -> ColumnElement[bool]:
    """Return the condition that the recorded last use is more than a minute ago."""
    return ApiKeyRow.last_used_at.is_(None) | (ApiKeyRow.last_used_at < seconds_from_now(-60))


_BY_PREFIX = select(
    ApiKeyRow, (ApiKeyRow.expires_at <= func.clock_timestamp()).label("expired"), _use_is_due().label("due")
).where(ApiKeyRow.prefix == bindparam("prefix"))
"""Statement that authenticates every request."""


def _note_use(session: Session, key_id: str) -> None:
    """Record the use of a key, without waiting for another request with the same key."""
    due = select(ApiKeyRow.id).where(ApiKeyRow.id == key_id, _use_is_due()).with_for_update(skip_locked=True)
    session.execute(
        update(ApiKeyRow).where(ApiKeyRow.id.in_(due)).values(last_used_at=func.clock_timestamp()),
        execution_options={"synchronize_session": False},
    )


def list_keys(session: Session, team_id: str, *, limit: int, after: str | None) -> Page[Key]:
    """Return the team's keys, newest first, including keys that are not valid any more, but for those of pipelines."""
    now = _now(session)
    is_past_pipeline = ApiKeyRow.workload_rule_id.is_not(None) & (ApiKeyRow.expires_at <= now)
    query = select(ApiKeyRow).where(ApiKeyRow.team_id == team_id, ~is_past_pipeline)
    return read_page(session, Listing(query, ApiKeyRow, lambda row: key_answer(row, now)), limit=limit, after=after)


def revoke_key(session: Session, caller: Actor, key_id: str) -> Key:
    """Revoke a key permanently; a revoked key stays as it is.

    Raises NotFound, and Conflict for the last valid admin key of its team.
    """
    team_id = team_of(caller)
    # Locked in one order: if two admins revoke each other's keys at once, one of them is refused.
    admins = session.scalars(
        select(ApiKeyRow.id)
        .where(
            ApiKeyRow.team_id == team_id,
            ApiKeyRow.role == "admin",
            ApiKeyRow.revoked_at.is_(None),
            or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > func.clock_timestamp()),
        )
        .order_by(ApiKeyRow.id)
        .with_for_update()
    ).all()
    row = _find(session, team_id, key_id)
    if list(admins) == [key_id]:
        raise Conflict("this is the team's last admin key: make another one first")
    if row.revoked_at is None:
        row.revoked_at = _now(session)
        session.flush()
        audit.note(session, caller, "key.revoke", row.id, {"name": row.name, "role": row.role})
    return key_answer(row, _now(session))


def _find(session: Session, team_id: str, key_id: str) -> ApiKeyRow:
    """Return a key's row, locked. Raises NotFound."""
    row = session.scalar(
        select(ApiKeyRow).where(ApiKeyRow.id == key_id, ApiKeyRow.team_id == team_id).with_for_update()
    )
    if row is None:
        raise NotFound(f"there is no key {key_id!r}")
    return row


def _now(session: Session) -> datetime:
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    return now


def _state(row: ApiKeyRow, now: datetime) -> KeyState:
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= now else "active"


def key_answer(row: ApiKeyRow, now: datetime) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        role=cast(Role, row.role),
        state=_state(row, now),
        prefix=row.prefix,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
