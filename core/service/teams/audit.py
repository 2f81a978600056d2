"""Audit trail: every change with its actor, written in the transaction of the change, and never removed."""

from collections.abc import Collection, Mapping
from typing import Any

import structlog
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from core.database import new_id
from core.pagination import Listing, read_page
from core.service.teams.principal import Actor, Principal, name_of, team_of
from core.service.teams.tables import ApiKeyRow, AuditRow, PersonRow
from secateur_wire.base import Page
from secateur_wire.teams import AuditEntry

REFUSED = "key.refused"


def note(session: Session, actor: Actor, action: str, object_id: str, details: Mapping[str, Any] | None = None) -> None:
    """Record an action of an actor.

    `action` is noun and verb (`job.cancel`), `details` plain JSON without any secret.
    """
    session.execute(insert(AuditRow).values(**entry(actor, action, object_id, details)))


def entry(actor: Actor, action: str, object_id: str, details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the columns that `note` writes, for a statement that also writes others.

    The request's id and address come from the log context, where the API binds them.
    """
    context = structlog.contextvars.get_contextvars()
    return {
        "id": new_id("audit"),
        "team_id": team_of(actor),
        "actor": name_of(actor),
        "key_id": actor.key_id if isinstance(actor, Principal) else None,
        "person_id": actor.person_id if isinstance(actor, Principal) else None,
        "action": action,
        "object_id": object_id,
        "details": dict(details or {}),
        "request_id": context.get("request_id"),
        "address": context.get("address"),
    }


def note_refusals(
    session: Session, owner: tuple[str, str] | None, *, address: str | None, reason: str, count: int
) -> None:
    """Record that a key was refused so many times. `owner` is the team and the id of a known key."""
    team_id, key_id = owner or (None, None)
    session.execute(
        insert(AuditRow).values(
            id=new_id("audit"),
            team_id=team_id,
            actor="nobody",
            key_id=None,
            person_id=None,
            action=REFUSED,
            object_id=key_id or "unknown",
            details={"reason": reason, "count": count},
            request_id=structlog.contextvars.get_contextvars().get("request_id") if count == 1 else None,
            address=address,
        )
    )


def list_refusals(session: Session, *, limit: int) -> list[AuditEntry]:
    """Return refusals of keys that belong to no team, newest first, for the server's operator."""
    query = select(AuditRow).where(AuditRow.team_id.is_(None)).order_by(AuditRow.created_at.desc(), AuditRow.id.desc())
    return [_answer(row) for row in session.scalars(query.limit(limit))]


def list_audit(
    session: Session,
    team_id: str,
    *,
    limit: int,
    after: str | None,
    action: str | None = None,
    object_id: str | None = None,
) -> Page[AuditEntry]:
    """Return the entries of the team's audit trail that match every filter, newest first."""
    query = select(AuditRow).where(AuditRow.team_id == team_id)
    if action is not None:
        query = query.where(AuditRow.action == action)
    if object_id is not None:
        query = query.where(AuditRow.object_id == object_id)
    page = read_page(session, Listing(query, AuditRow, _answer), limit=limit, after=after)
    names = _names_of(session, {each.key_id or each.person_id or "" for each in page.data})
    return page.model_copy(update={"data": [_named(each, names) for each in page.data]})


def actors_of(session: Session, team_id: str, action: str, object_ids: Collection[str]) -> dict[str, str]:
    """Return the names of the actors who did an action first, by the ids of the team's objects.

    An actor is shown by the name of the key or person, else as in the trail. Other teams' objects are left out.
    """
    query = select(AuditRow).where(
        AuditRow.team_id == team_id, AuditRow.action == action, AuditRow.object_id.in_(object_ids)
    )
    first: dict[str, AuditRow] = {}
    for row in session.scalars(query.order_by(AuditRow.created_at, AuditRow.id)):
        first.setdefault(row.object_id, row)
    names = _names_of(session, {row.key_id or row.person_id or "" for row in first.values()})
    return {object_id: names.get(row.key_id or row.person_id or "", row.actor) for object_id, row in first.items()}


def _names_of(session: Session, actor_ids: Collection[str]) -> dict[str, str]:
    """Return the present names of keys and people."""
    keys = select(ApiKeyRow.id, ApiKeyRow.name).where(ApiKeyRow.id.in_(actor_ids))
    people = select(PersonRow.id, PersonRow.name).where(PersonRow.id.in_(actor_ids))
    return {row.id: row.name for row in session.execute(keys.union_all(people))}


def _named(entry: AuditEntry, names: Mapping[str, str]) -> AuditEntry:
    return entry.model_copy(update={"actor_name": names.get(entry.key_id or entry.person_id or "")})


def _answer(row: AuditRow) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        actor=row.actor,
        action=row.action,
        object_id=row.object_id,
        key_id=row.key_id,
        person_id=row.person_id,
        actor_name=None,
        request_id=row.request_id,
        address=row.address,
        details=row.details,
        created_at=row.created_at,
    )
