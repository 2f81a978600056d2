"""Scheduled firings: each due time fires once, for any number of dispatchers.

One transaction on the trigger's locked row fires it and sets its next due time, so a dispatcher that dies leaves
neither half done. Times that passed without a dispatcher make one late firing with a note about it. While the hub is
unavailable or a quota is used up, a due time is kept until the next one.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.database import transaction
from core.service.duties.isolation import IsolatedRows, RowTask, is_passing, is_tried
from core.service.duties.tables import RowFailureRow
from core.service.duties.team_threads import TeamThreads
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.jobs.schemas import Job, JobBody
from core.service.teams import audit
from core.service.teams.principal import Automation
from core.service.triggers import history
from core.service.triggers.bodies import body_of
from core.service.triggers.context import TriggerContext
from core.service.triggers.definitions import definition_of
from core.service.triggers.firing import accept
from core.service.triggers.history import FiringAttempt
from core.service.triggers.schedule import MOST_COUNTED, count_due, last_due, next_due
from core.service.triggers.tables import TriggerRow
from core.service.triggers.validation import scheduled_payload
from secateur_wire.errors import SecateurError

DUTY: Final = "triggers"
MOST_FAILURES: Final = 10
"""Consecutive refused scheduled firings after which a trigger is disabled."""
_BATCH: Final = 100
_LATE: Final = timedelta(minutes=1)

log = structlog.get_logger()


def fire_due(
    context: TriggerContext,
    on_job: Callable[[Job], None],
    *,
    threads: TeamThreads | None = None,
    now: datetime | None = None,
) -> int:
    """Fire all triggers due at `now` (unset: the database's clock); call `on_job` with each job after its commit.

    Triggers that name something on the hub come last. With `threads` they are fired there, and this call does not wait
    for them. Returns the number of jobs created here.
    """
    rows = IsolatedRows(context.sessions, DUTY)
    under_way = [] if threads is None else threads.under_way(DUTY)
    with transaction(context.sessions) as session:
        moment = now or session.scalars(select(func.clock_timestamp())).one()
        due = _due(session, moment, under_way)
    began = time.monotonic()

    def fire(row: TriggerRow) -> Job | None:
        job = _fire(context, row, moment, began, rows.last_failure(row.id))
        if job is not None:
            on_job(job)
        return job

    tasks = [RowTask(row.id, partial(fire, row), _park, row.team_id, partial(_asks_hub, context, row)) for row in due]
    return len(rows.run_all(tasks, threads))


def _due(session: Session, moment: datetime, under_way: list[str]) -> list[TriggerRow]:
    """Return due triggers, each team in turn, so that a team with many does not delay others."""
    place = func.row_number().over(partition_by=TriggerRow.team_id, order_by=TriggerRow.next_fire_at)
    ranked = (
        select(TriggerRow.id, place.label("place"))
        .where(TriggerRow.next_fire_at <= moment, TriggerRow.id.not_in(under_way), is_tried(DUTY, TriggerRow.id))
        .subquery()
    )
    query = select(TriggerRow).join(ranked, ranked.c.id == TriggerRow.id)
    return list(session.scalars(query.order_by(ranked.c.place, TriggerRow.next_fire_at).limit(_BATCH)))


def _attempt(row: TriggerRow) -> FiringAttempt:
    assert row.next_fire_at is not None
    due = row.next_fire_at.isoformat()
    return FiringAttempt(row, "schedule", event_id=due, payload=scheduled_payload(due))


def _asks_hub(context: TriggerContext, row: TriggerRow) -> bool:
    try:
        return context.hub.asks(body_of(definition_of(row), _attempt(row).payload))
    except SecateurError:  # The firing is refused without asking the hub.
        return False


def _fire(
    context: TriggerContext, row: TriggerRow, now: datetime, began: float, failure: RowFailureRow | None
) -> Job | None:
    """Fire a trigger that is due. Raises temporary refusals: the due time is then kept.

    `began` is the reading of this process's clock at `now`; `failure` is the failure of the last try.
    """
    due = row.next_fire_at
    assert due is not None and row.cron is not None and row.timezone is not None
    attempt = _attempt(row)
    prepared = _prepare(context, row, attempt)
    waited = timedelta(seconds=time.monotonic() - began)
    attempt.note = _lateness(row.cron, row.timezone, due, now, waited, failure)
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
        if locked is None:  # Another dispatcher fires it, or a user has just changed it: the next round decides.
            return None
        job, refusal = _make_job(session, context, attempt, prepared)
        if refusal is not None and is_passing(refusal):
            newest = last_due(row.cron, row.timezone, due, now + waited)
            if newest is None:
                raise refusal
            locked.next_fire_at = newest
            attempt.note = "missed: it could not be fired before its next due time, which is tried now"
            history.write(session, attempt, "refused", error=refusal)
            return None
        locked.next_fire_at = next_due(row.cron, row.timezone, now)
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
    """Return the job, or the error that prevented it."""
    if isinstance(prepared, SecateurError):
        return None, prepared
    try:
        with session.begin_nested():
            return accept(session, context, attempt, *prepared).job, None
    except SecateurError as error:
        return None, error


def _count_failure(session: Session, row: TriggerRow, refusal: SecateurError) -> None:
    row.failures += 1
    if row.failures >= MOST_FAILURES:
        _disable(session, row, f"{MOST_FAILURES} scheduled firings in a row were refused, the last: {refusal.message}")


def _park(trigger_id: str, session: Session, reason: SecateurError) -> bool:
    """Disable a trigger that cannot be fired because of a fault of this service."""
    locked = session.get(TriggerRow, trigger_id, with_for_update={"key_share": True})
    if locked is not None and locked.enabled:
        _disable(session, locked, f"its schedule could not be fired, {reason.message}")
    return True


def _lateness(
    cron: str, timezone: str, due: datetime, now: datetime, waited: timedelta, failure: RowFailureRow | None
) -> str | None:
    """Return the note for a firing that is late, or that stands for several; None for one in time.

    It was taken up at `now`, and has `waited` for the hub since; `failure` is the failure of the last try.
    """
    missed = count_due(cron, timezone, due, now)
    late = now + waited - due
    if missed == 0 and late < _LATE:
        return None
    if failure is not None and failure.failed_at >= due:
        reason = f"it was refused before ({failure.error})"
    elif missed == 0 and now - due < _LATE:
        reason = "the hub took long to answer"
    else:
        reason = "no dispatcher came to it before"
    note = f"fired {late.total_seconds():.0f} s late: {reason}"
    if missed == 0:
        return note
    count = f"{missed} or more" if missed >= MOST_COUNTED else str(missed)
    return f"{note}; {count} later due time{'s' if missed != 1 else ''} passed meanwhile and will not be fired"


def _disable(session: Session, row: TriggerRow, reason: str) -> None:
    """End a locked trigger's schedule, with a reason for its team."""
    row.enabled = False
    row.next_fire_at = None
    row.disabled_reason = reason
    session.flush()
    actor = Automation(row.team_id, f"trigger:{row.id}")
    audit.note(session, actor, "trigger.disable", row.id, {"name": row.name, "reason": reason})
