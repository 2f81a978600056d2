"""Scheduled firings: each due time fires once, however many dispatchers there are.

Firing and moving on to the next due time are one transaction on the trigger's locked row, so a dispatcher that dies
between has done neither. Times that passed while none ran make one firing, late, which says so.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.database import transaction
from core.errors import SecateurError
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.jobs.schemas import Job, JobBody
from core.service.teams import audit
from core.service.teams.principal import Automation
from core.service.triggers import history, versions
from core.service.triggers.bodies import body_of
from core.service.triggers.context import TriggerContext
from core.service.triggers.definitions import definition_of
from core.service.triggers.firing import accept
from core.service.triggers.history import FiringAttempt
from core.service.triggers.schedule import MOST_COUNTED, count_due, next_due
from core.service.triggers.tables import TriggerRow
from core.service.triggers.validation import scheduled_payload

MOST_FAILURES = 10
"""Scheduled firings refused in a row, after which a trigger is disabled."""
_BATCH = 100
_LATE = timedelta(minutes=1)

log = structlog.get_logger()


def fire_due(context: TriggerContext, *, now: datetime | None = None) -> Iterator[Job]:
    """Fire what is due at `now` (unset: the database's clock), giving each job once it is committed."""
    with transaction(context.sessions) as session:
        moment = now or session.scalars(select(func.clock_timestamp())).one()
        rows = session.scalars(
            select(TriggerRow).where(TriggerRow.next_fire_at <= moment).order_by(TriggerRow.next_fire_at).limit(_BATCH)
        ).all()
    for row in rows:
        job = _fire(context, row, moment)
        if job is not None:
            yield job


def _fire(context: TriggerContext, row: TriggerRow, now: datetime) -> Job | None:
    due = row.next_fire_at
    assert due is not None and row.cron is not None and row.timezone is not None
    attempt = FiringAttempt(
        row,
        "schedule",
        event_id=due.isoformat(),
        payload=scheduled_payload(due.isoformat()),
        note=_lateness(row.cron, row.timezone, due, now),
    )
    prepared = _prepare(context, row, attempt)
    with transaction(context.sessions) as session:
        locked = session.scalar(
            select(TriggerRow)
            .where(
                TriggerRow.id == row.id,
                TriggerRow.enabled,
                TriggerRow.next_fire_at == due,
                TriggerRow.updated_at == row.updated_at,
            )
            .with_for_update(key_share=True, skip_locked=True)
        )
        if locked is None:  # another dispatcher fires it, or somebody has just changed it: the next round sees
            return None
        locked.next_fire_at = next_due(row.cron, row.timezone, now)
        job, refusal = _make_job(session, context, attempt, prepared)
        if refusal is None:
            locked.failures = 0
        else:
            history.write(session, attempt, "refused", error=refusal)
            _count_failure(session, locked, refusal)
    return job


def _prepare(
    context: TriggerContext, row: TriggerRow, attempt: FiringAttempt
) -> tuple[JobBody, HubFindings] | SecateurError:
    try:
        body = body_of(definition_of(row), attempt.payload)
    except SecateurError as error:
        return error
    return body, context.hub.of(row.team_id, body)


def _make_job(
    session: Session,
    context: TriggerContext,
    attempt: FiringAttempt,
    prepared: tuple[JobBody, HubFindings] | SecateurError,
) -> tuple[Job | None, SecateurError | None]:
    """Return the job, or the error for which there is none."""
    if isinstance(prepared, SecateurError):
        return None, prepared
    try:
        with session.begin_nested():
            return accept(session, context, attempt, *prepared).job, None
    except SecateurError as error:
        return None, error
    except Exception as error:  # one trigger's fault of ours keeps no other from firing
        log.error("a trigger could not be fired", trigger=attempt.trigger.id, exc_info=error)
        return None, SecateurError("an unexpected error; it was logged")


def _count_failure(session: Session, row: TriggerRow, refusal: SecateurError) -> None:
    row.failures += 1
    if row.failures < MOST_FAILURES:
        return
    before = definition_of(row)
    row.enabled = False
    row.next_fire_at = None
    row.disabled_reason = f"{MOST_FAILURES} scheduled firings in a row were refused, the last: {refusal.message}"
    session.flush()
    actor = Automation(row.team_id, f"trigger:{row.id}")
    versions.record(session, actor, row, before)
    audit.note(session, actor, "trigger.disable", row.id, {"name": row.name, "reason": row.disabled_reason})


def _lateness(cron: str, timezone: str, due: datetime, now: datetime) -> str | None:
    """Return the note on a firing that comes long after its time, or for several; None for one in time."""
    missed = count_due(cron, timezone, due, now)
    if missed == 0 and now - due < _LATE:
        return None
    seconds = (now - due).total_seconds()
    late = f"fired {seconds:.0f} s late: no dispatcher was running when it was due"
    if missed == 0:
        return late
    count = f"{missed} or more" if missed >= MOST_COUNTED else str(missed)
    return f"{late}; {count} later due time{'s' if missed != 1 else ''} passed meanwhile and will not be fired"
