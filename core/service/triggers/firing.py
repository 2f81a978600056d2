"""Firing of triggers: one job for each event, and an entry in the trigger's history for every request.

The hub is asked before the transaction that creates the job. That transaction begins with the event's row, which is
unique. A refusal rolls it back, and is recorded in another transaction.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import telemetry
from core.database import transaction
from core.service.jobs import service
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.jobs.schemas import Job, JobBody
from core.service.teams.principal import Automation, Principal, name_of
from core.service.triggers import history
from core.service.triggers.authentication import SentHeaders, authenticate_sender, event_id_of
from core.service.triggers.bodies import body_of
from core.service.triggers.context import TriggerContext
from core.service.triggers.definitions import definition_of
from core.service.triggers.history import FiringAttempt
from core.service.triggers.json_pointer import MISSING, look_up
from core.service.triggers.schemas import Firing, HubSource
from core.service.triggers.tables import TriggerRow
from secateur_wire.errors import Conflict, NotFound, SecateurError

_DEFAULT_BRANCH = "refs/heads/main"
"""Default branch of every repository of the hub."""
_CONTENT = "repo.content"


@dataclass(frozen=True)
class HubEvent:
    """Event of the hub's webhooks (version 3, https://huggingface.co/docs/hub/webhooks).

    `ignored` is the reason why it does not fire the trigger; otherwise `event_id` is the commit's.
    """

    event_id: str | None
    ignored: str | None


def read_hub_event(source: HubSource, payload: Any) -> HubEvent:
    """Parse an event. Its sender knows the hub's secret, so an unknown payload is ignored, with the reason."""
    scope, action = _text(payload, "/event/scope"), _text(payload, "/event/action")
    kind, name, head = (_text(payload, f"/repo/{each}") for each in ("type", "name", "headSha"))
    if None in (scope, action, kind, name):
        return _ignored("not an event of the hub: it lacks event.scope, event.action, repo.type or repo.name")
    if (kind, name) != (source.type, source.repository):
        return _ignored(f"an event of the {kind} {name}; this trigger watches the {source.type} {source.repository}")
    if action != "update" or not (scope == _CONTENT or str(scope).startswith(f"{_CONTENT}.")):
        return _ignored(f"{action} of {scope}; this trigger waits for new commits ({_CONTENT})")
    refs = look_up(payload, "/updatedRefs")
    moved = [each for each in refs if isinstance(each, dict)] if isinstance(refs, list) else []
    if not any(each.get("ref") == _DEFAULT_BRANCH and each.get("newSha") for each in moved):
        names = ", ".join(str(each.get("ref"))[:100] for each in moved[:5]) or "no branch"
        return _ignored(f"a change of {names}; this trigger waits for commits on {_DEFAULT_BRANCH}")
    if head is None:
        return _ignored("the event lacks repo.headSha")
    return HubEvent(f"{kind}:{name}@{head}"[:255], None)


def _ignored(reason: str) -> HubEvent:
    return HubEvent(None, reason)


def _text(payload: Any, pointer: str) -> str | None:
    value = look_up(payload, pointer)
    return value[:200] if value is not MISSING and isinstance(value, str) else None


@dataclass(frozen=True)
class TriggerDelivery:
    """Request to fire a trigger: `payload` is the parsed `body`, `size` is in bytes.

    `refusal` is set instead if the request was refused before all of it was read, or is not JSON.
    """

    headers: SentHeaders
    body: bytes = b""
    payload: Any = None
    size: int = 0
    refusal: SecateurError | None = None


@dataclass(frozen=True)
class FiringResult:
    """Firing with its result, and its job if it created one: the caller sends the hint."""

    firing: Firing
    job: Job | None


def fire_by_url(context: TriggerContext, trigger: TriggerRow, delivery: TriggerDelivery) -> FiringResult:
    """Fire a trigger for a request to its URL.

    Raises Unauthenticated where the sender is not authenticated, Conflict where the trigger is disabled, the
    InvalidRequest kind that names the fault in the payload, and the errors of a submit.
    """
    attempt = FiringAttempt(trigger, "url", payload_bytes=delivery.size)
    try:
        if delivery.refusal is not None:
            raise delivery.refusal
        attempt.source = authenticate_sender(trigger, delivery.headers, delivery.body, context.secret)
        attempt.payload = delivery.payload
        if attempt.source == "hub":
            event = read_hub_event(HubSource.model_validate(trigger.hub), delivery.payload)
            attempt.event_id, attempt.note = event.event_id, event.ignored
            if event.ignored is not None:
                with transaction(context.sessions) as session:
                    _require(session, trigger.id)
                    return FiringResult(history.write(session, attempt, "ignored"), None)
        else:
            attempt.event_id = event_id_of(trigger.event_id, delivery.headers, delivery.payload)
        return _make_job(context, attempt)
    except SecateurError as error:
        _refuse(context, attempt, error)
        raise


def fire_by_hand(
    context: TriggerContext, caller: Principal, trigger: TriggerRow, delivery: TriggerDelivery
) -> FiringResult:
    """Fire the trigger for a member of the team, without authentication; raises the errors of `fire_by_url`."""
    attempt = FiringAttempt(trigger, "manual", actor=name_of(caller), payload_bytes=delivery.size)
    try:
        if delivery.refusal is not None:
            raise delivery.refusal
        attempt.payload = delivery.payload
        attempt.event_id = event_id_of(trigger.event_id, delivery.headers, delivery.payload)
        return _make_job(context, attempt)
    except SecateurError as error:
        _refuse(context, attempt, error)
        raise


def accept(
    session: Session, context: TriggerContext, attempt: FiringAttempt, body: JobBody, findings: HubFindings
) -> FiringResult:
    """Create the event's job, or find it. Raises the errors of a submit; the session must then be rolled back."""
    trigger = attempt.trigger
    firing_id = history.claim_event(session, attempt)
    if firing_id is None:
        first = history.job_of_event(session, attempt)
        return FiringResult(history.write(session, attempt, "duplicate", job_id=first), None)
    actor = Automation(trigger.team_id, f"trigger:{trigger.id}")
    with telemetry.span("job.submit"):
        job = service.submit(context.request(session, actor, findings), body)
    return FiringResult(history.accepted(session, firing_id, job.id), job)


def _make_job(context: TriggerContext, attempt: FiringAttempt) -> FiringResult:
    trigger = attempt.trigger
    _require_enabled(trigger.enabled, trigger.disabled_reason)
    body = body_of(definition_of(trigger), attempt.payload)
    findings = context.hub.of(trigger.team_id, body)
    with transaction(context.sessions) as session:
        _require(session, trigger.id)
        return accept(session, context, attempt, body, findings)


def _require(session: Session, trigger_id: str) -> None:
    """Require that the trigger was not deleted or disabled while the hub was asked."""
    row = session.execute(
        select(TriggerRow.enabled, TriggerRow.disabled_reason)
        .where(TriggerRow.id == trigger_id)
        .with_for_update(read=True, key_share=True)
    ).one_or_none()
    if row is None:
        raise NotFound("this trigger is deleted")
    _require_enabled(row.enabled, row.disabled_reason)


def _require_enabled(enabled: bool, reason: str | None) -> None:
    if not enabled:
        raise Conflict(f"this trigger is disabled{f' ({reason})' if reason else ''}: enable it first")


def _refuse(context: TriggerContext, attempt: FiringAttempt, error: SecateurError) -> None:
    with transaction(context.sessions) as session:
        if session.scalar(
            select(TriggerRow.id).where(TriggerRow.id == attempt.trigger.id).with_for_update(read=True, key_share=True)
        ):
            history.write(session, attempt, "refused", error=error)
