"""Versions of a trigger: each definition it had, its author, and the changes."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from pydantic import JsonValue
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.database import new_id
from core.pagination import Listing, read_page
from core.service.teams.principal import Actor, name_of
from core.service.triggers.definitions import definition_of
from core.service.triggers.schemas import TriggerBody
from core.service.triggers.tables import TriggerRow, TriggerVersionRow
from secateur_wire.base import JsonObject, Page
from secateur_wire.errors import Conflict, NotFound
from secateur_wire.triggers import TriggerChange, TriggerVersion


def record(session: Session, actor: Actor, row: TriggerRow) -> None:
    """Record the definition of a locked trigger's row as its newest version, unless it is unchanged."""
    query = select(TriggerVersionRow).where(TriggerVersionRow.trigger_id == row.id)
    newest = session.scalar(query.order_by(TriggerVersionRow.number.desc()).limit(1))
    definition = document(definition_of(row))
    if newest is not None and newest.definition == definition:
        return
    session.add(
        TriggerVersionRow(
            id=new_id("tver"),
            trigger_id=row.id,
            number=1 if newest is None else newest.number + 1,
            actor=name_of(actor),
            definition=definition,
        )
    )
    session.flush()


def list_versions(session: Session, row: TriggerRow, *, limit: int, after: str | None) -> Page[TriggerVersion]:
    """Return the versions of a trigger, newest first, each with its changes to the one before."""
    query = select(TriggerVersionRow).where(TriggerVersionRow.trigger_id == row.id)
    page = read_page(session, Listing(query, TriggerVersionRow, _answer), limit=limit, after=after)
    if not page.data:
        return page
    oldest = page.data[-1]
    earlier = session.scalar(
        select(TriggerVersionRow.definition).where(
            TriggerVersionRow.trigger_id == row.id, TriggerVersionRow.number == oldest.number - 1
        )
    )
    definitions = [each.definition for each in page.data] + [earlier]
    return page.model_copy(
        update={
            "data": [
                each.model_copy(update={"changes": [] if before is None else list(changes(before, each.definition))})
                for each, before in zip(page.data, definitions[1:], strict=True)
            ]
        }
    )


def find_version(session: Session, row: TriggerRow, number: int) -> TriggerBody:
    """Return the definition of a trigger at a version number; raises NotFound."""
    definition = session.scalar(
        select(TriggerVersionRow.definition).where(
            TriggerVersionRow.trigger_id == row.id, TriggerVersionRow.number == number
        )
    )
    if definition is None:
        raise NotFound(f"the trigger {row.name!r} has no version {number}")
    return TriggerBody.model_validate(definition)


def require_unchanged(row: TriggerRow, since: datetime) -> None:
    """Require that nobody changed a trigger after `since`; raises Conflict."""
    if row.updated_at != since:
        raise Conflict(
            "somebody changed this trigger meanwhile: look at its versions, then make your changes in the newest"
        )


def document(body: TriggerBody) -> JsonObject:
    """Return a definition as JSON, the form stored in versions."""
    return body.model_dump(mode="json", exclude_none=True)


def changes(before: JsonObject, after: JsonObject) -> Iterator[TriggerChange]:
    """Yield every field that differs, by its dotted path, with both values; null for a missing one."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    for field in dict.fromkeys([*old, *new]):
        if old.get(field) != new.get(field):
            yield TriggerChange(field=field, before=old.get(field), after=new.get(field))


def _leaves(value: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    for name, each in value.items():
        if isinstance(each, dict) and each:
            yield from _leaves(each, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", each


def _answer(row: TriggerVersionRow) -> TriggerVersion:
    return TriggerVersion(
        trigger_id=row.trigger_id,
        number=row.number,
        actor=row.actor,
        definition=row.definition,
        changes=[],
        created_at=row.created_at,
    )
