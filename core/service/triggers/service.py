"""Service of a team's triggers: create, read, change, rotate secrets, delete; and look-up by token."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.database import new_id, transaction
from core.pagination import Listing, read_page
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.teams import audit
from core.service.teams.principal import Actor, Principal, team_of
from core.service.triggers import history, secrets
from core.service.triggers.authentication import SentHeaders, event_id_of
from core.service.triggers.bodies import body_of
from core.service.triggers.context import TriggerContext
from core.service.triggers.definitions import definition_of, trigger_answer, values_of
from core.service.triggers.schedule import next_due
from core.service.triggers.schemas import Firing, IssuedTrigger, Trigger, TriggerBody, TriggerChanges, TriggerPreview
from core.service.triggers.tables import TriggerRow
from core.service.triggers.validation import check_trigger, dry_run
from core.validation import invalid_request
from secateur_wire.base import Page
from secateur_wire.errors import Conflict, NotFound
from secateur_wire.triggers import TriggerSecret

HOOKS = "v1/hooks/"
_CHECKED = frozenset({"template", "placeholders", "schedule"})
"""A change to one of these fields is checked like a new trigger. Other changes are not, so a trigger whose model is
gone can still be disabled or renamed."""


def create(
    session: Session, caller: Actor, body: TriggerBody, *, context: TriggerContext, findings: HubFindings, base_url: str
) -> IssuedTrigger:
    """Create a trigger; its secrets are only in this answer. `findings` are those of its template (`look_up_template`).

    Raises Conflict where the team has a trigger of that name, and the InvalidRequest kind that names a fault.
    """
    team_id = team_of(caller)
    check_trigger(context.request(session, caller, findings), body)
    token = secrets.new_token()
    signing = secrets.new_signing_secret() if body.signing else None
    hub = secrets.new_hub_secret() if body.hub is not None else None
    row = session.scalar(
        insert(TriggerRow)
        .values(
            id=new_id("trigger"),
            team_id=team_id,
            token_digest=secrets.digest(token, context.secret),
            signing_secret=None if signing is None else secrets.seal(signing, context.secret),
            hub_digest=None if hub is None else secrets.digest(hub, context.secret),
            next_fire_at=_next_fire(body, _now(session)),
            **values_of(body),
        )
        .on_conflict_do_nothing(index_elements=["team_id", "name"])
        .returning(TriggerRow)
    )
    if row is None:
        raise _name_taken(body.name)
    audit.note(session, caller, "trigger.create", row.id, {"name": row.name})
    return _issued(row, base_url, token=token, signing_secret=signing, hub_secret=hub)


def list_triggers(session: Session, team_id: str, *, limit: int, after: str | None) -> Page[Trigger]:
    """Return the team's triggers, newest first."""
    query = select(TriggerRow).where(TriggerRow.team_id == team_id)
    return read_page(session, Listing(query, TriggerRow, trigger_answer), limit=limit, after=after)


def find(session: Session, team_id: str, trigger_id: str, *, lock: bool = False) -> TriggerRow:
    """Return a trigger by id or name; raises NotFound, also for another team's."""
    is_id = TriggerRow.id == trigger_id
    query = select(TriggerRow).where(TriggerRow.team_id == team_id, or_(is_id, TriggerRow.name == trigger_id))
    query = query.order_by(is_id.desc()).limit(1)
    row = session.scalar(query.with_for_update(key_share=True) if lock else query)
    if row is None:
        raise NotFound(f"there is no trigger {trigger_id!r}")
    return row


def find_by_token(session: Session, token: str, secret: bytes) -> TriggerRow:
    """Return the trigger of a URL's token; raises NotFound for an unknown token and for one that was replaced."""
    row = session.scalar(select(TriggerRow).where(TriggerRow.token_digest == secrets.digest(token, secret)))
    if row is None or not secrets.is_digest_of(row.token_digest, token, secret):
        raise NotFound("there is no trigger at this address")
    return row


def changed(session: Session, team_id: str, trigger_id: str, changes: TriggerChanges) -> TriggerBody:
    """Return the trigger with the changes applied. Raises NotFound, InvalidRequest."""
    return _apply(find(session, team_id, trigger_id), changes)


def update(
    session: Session,
    caller: Actor,
    trigger_id: str,
    changes: TriggerChanges,
    *,
    context: TriggerContext,
    findings: HubFindings,
    base_url: str,
    unchanged_since: datetime | None = None,
) -> IssuedTrigger:
    """Change a trigger; secrets that it did not need before are created and shown. Raises NotFound, and as `create`.

    Raises Conflict also where it was changed after `unchanged_since`.
    """
    row = find(session, team_of(caller), trigger_id, lock=True)
    if unchanged_since is not None and row.updated_at != unchanged_since:
        raise Conflict(
            "somebody changed this trigger meanwhile: open it again, then make your changes in what it is now"
        )
    now = _now(session)
    before, body = definition_of(row), _apply(row, changes)
    if changes.model_fields_set & _CHECKED:
        check_trigger(context.request(session, caller, findings), body)
    signing = secrets.new_signing_secret() if body.signing and not before.signing else None
    hub = secrets.new_hub_secret() if body.hub is not None and before.hub is None else None
    for name, value in values_of(body).items():
        setattr(row, name, value)
    if signing is not None or not body.signing:
        row.signing_secret = None if signing is None else secrets.seal(signing, context.secret)
    if hub is not None or body.hub is None:
        row.hub_digest = None if hub is None else secrets.digest(hub, context.secret)
    if (body.schedule, body.enabled) != (before.schedule, before.enabled):
        row.next_fire_at = _next_fire(body, now)
        row.failures = 0
    if body.enabled:
        row.disabled_reason = None
    row.updated_at = now
    try:
        session.flush()
    except IntegrityError:
        raise _name_taken(body.name) from None
    audit.note(session, caller, "trigger.update", row.id, {"changed": sorted(changes.model_fields_set)})
    return _issued(row, base_url, signing_secret=signing, hub_secret=hub)


def rotate(
    session: Session, caller: Actor, trigger_id: str, wanted: Collection[TriggerSecret], *, secret: bytes, base_url: str
) -> IssuedTrigger:
    """Replace secrets; the old ones become invalid. Raises NotFound, Conflict where the trigger has no such secret."""
    row = find(session, team_of(caller), trigger_id, lock=True)
    token = signing = hub = None
    if "url" in wanted:
        token = secrets.new_token()
        row.token_digest = secrets.digest(token, secret)
    if "signing" in wanted:
        if row.signing_secret is None:
            raise Conflict("this trigger's payloads are not signed: set signing to true first")
        signing = secrets.new_signing_secret()
        row.signing_secret = secrets.seal(signing, secret)
    if "hub" in wanted:
        if row.hub_digest is None:
            raise Conflict("this trigger has no hub source: add one first")
        hub = secrets.new_hub_secret()
        row.hub_digest = secrets.digest(hub, secret)
    row.updated_at = _now(session)
    session.flush()
    audit.note(session, caller, "trigger.rotate", row.id, {"secrets": sorted(set(wanted))})
    return _issued(row, base_url, token=token, signing_secret=signing, hub_secret=hub)


def remove(session: Session, caller: Actor, trigger_id: str) -> None:
    """Delete a trigger with its history; its jobs stay. Raises NotFound."""
    row = find(session, team_of(caller), trigger_id)
    session.execute(delete(TriggerRow).where(TriggerRow.id == row.id))
    audit.note(session, caller, "trigger.delete", row.id, {"name": row.name})


def list_firings(session: Session, team_id: str, trigger_id: str, *, limit: int, after: str | None) -> Page[Firing]:
    """Return a trigger's history, newest first. Raises NotFound."""
    return history.list_firings(session, find(session, team_id, trigger_id).id, limit=limit, after=after)


def preview(
    context: TriggerContext, caller: Principal, trigger_id: str, payload: Any, headers: SentHeaders
) -> TriggerPreview:
    """Preview the job that a payload would create. A disabled trigger can be previewed too.

    Raises the errors of firing by hand, except for quotas.
    """
    with transaction(context.sessions) as session:
        row = find(session, caller.team_id, trigger_id)
    event_id = event_id_of(row.event_id, headers, payload)
    body = body_of(definition_of(row), payload)
    findings = context.hub.of(row.team_id, body)
    with transaction(context.sessions) as session:
        job, estimate = dry_run(context.request(session, row.team_id, findings), body)
    return TriggerPreview(event_id=event_id, job=job, estimate=estimate)


def _apply(row: TriggerRow, changes: TriggerChanges) -> TriggerBody:
    try:
        return changes.applied_to(definition_of(row))
    except ValidationError as error:
        raise invalid_request(error) from None


def _next_fire(body: TriggerBody, now: datetime) -> datetime | None:
    if body.schedule is None or not body.enabled:
        return None
    return next_due(body.schedule.cron, body.schedule.timezone, now)


def _now(session: Session) -> datetime:
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    return now


def _name_taken(name: str) -> Conflict:
    return Conflict(f"the name {name!r} is taken by another trigger of the team", param="name")


def _issued(
    row: TriggerRow,
    base_url: str,
    *,
    token: str | None = None,
    signing_secret: str | None = None,
    hub_secret: str | None = None,
) -> IssuedTrigger:
    return IssuedTrigger(
        **trigger_answer(row).model_dump(),
        url=None if token is None else f"{base_url}{HOOKS}{token}",
        signing_secret=signing_secret,
        hub_secret=hub_secret,
    )
