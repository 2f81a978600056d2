"""The clock: hints that were lost are sent again, expired leases go back to the queue, old idempotency keys go.

A process of its own in every mode, `celery --app worker.app worker --queues control --pool solo --beat`: workers that
prune never consume `control`, so a job of hours cannot keep it waiting. Nothing here must happen exactly once.
"""

import os
from typing import Any

import structlog
from celery.signals import beat_embedded_init
from sqlalchemy.orm import Session, sessionmaker

from core.artifacts.store import open_store
from core.database import session_factory, transaction
from core.jobs import queue
from core.jobs.fleet import count_ended_attempts
from core.jobs.hints import SendHint, hint_or_note, hint_sender
from core.jobs.hub_lookup import HubLookup
from core.jobs.idempotency import expire_idempotency_keys
from core.publications.running import publish_waiting
from core.registry.hub import Hub
from core.registry.orphans import sweep_orphans
from core.retention.service import apply_retention
from core.settings import Settings, get_settings
from core.sweeps.advance import advance_sweeps
from core.teams.secret import server_secret
from core.triggers.due import fire_due
from core.triggers.history import remove_old_firings
from core.triggers.means import Means
from core.webhooks.dispatch import deliver_due, remove_old_deliveries
from worker import alive
from worker.app import app
from worker.chores import Chore
from worker.processes import follow_parent

logger = structlog.get_logger()

_DISPATCHER = os.getpid()
"""Loaded before the clock is forked."""
_sessions: sessionmaker[Session] | None = None
_means: Means | None = None


def _sweep(sessions: sessionmaker[Session], settings: Settings) -> int:
    return len(sweep_orphans(sessions, open_store(settings), settings))


def _means_of(sessions: sessionmaker[Session], settings: Settings) -> Means:
    """Made once: the hub's answers are remembered for a moment."""
    global _means
    if _means is None or _means.sessions is not sessions:
        hub = HubLookup(Hub(settings), sessions, max_bytes=settings.hub_max_bytes, local_tasks=settings.local_tasks)
        _means = Means(sessions, open_store(settings), settings, hub, server_secret(settings))
    return _means


def _advance_sweeps(sessions: sessionmaker[Session], settings: Settings) -> int | None:
    means = _means_of(sessions, settings)
    send_hint = hint_sender(app, settings.hint_stale_seconds)
    return advance_sweeps(sessions, settings, store=means.store, hub=means.hub, send_hint=send_hint) or None


def _fire_triggers(sessions: sessionmaker[Session], settings: Settings) -> int | None:
    send_hint = hint_sender(app, settings.hint_stale_seconds)
    fired = 0
    for job in fire_due(_means_of(sessions, settings)):
        hint_or_note(send_hint, sessions, job.id, job.queue)
        fired += 1
    return fired or None


def _forget_firings(sessions: sessionmaker[Session], settings: Settings) -> int | None:
    with transaction(sessions) as session:
        return remove_old_firings(session, settings.trigger_history_days) or None


PUBLISHERS = 3
"""Publications on their way at once."""

CHORES = (
    Chore("sweep of the store", 600.0, _sweep),
    Chore("sweeps of jobs", 1.5, _advance_sweeps),
    Chore("firing of scheduled triggers", 2.0, _fire_triggers),
    Chore("removal of old firings", 60.0, _forget_firings),
    Chore("webhooks", 1.0, deliver_due),
    Chore("removal of old webhook deliveries", 600.0, remove_old_deliveries),
    Chore("retention", 600.0, apply_retention),
    *(Chore(f"publishing {number}", 2.0, publish_waiting) for number in range(1, PUBLISHERS + 1)),
)


def dispatch(sessions: sessionmaker[Session], settings: Settings, send_hint: SendHint) -> int:
    """One round; how many hints were sent.

    Rows are marked and committed before the hints go, since a quick worker would skip a row still locked. Where the
    broker is down the marks stand, and the next round after `hint_stale_seconds` sends again.
    """
    with transaction(sessions) as session:
        for job_id in queue.expire_leases(session):
            logger.warning("lease expired", job=job_id)
    with transaction(sessions) as session:
        expire_idempotency_keys(session)
        due = queue.hints_due(session, settings.hint_stale_seconds)
        queue.mark_dispatched(session, [job_id for job_id, _ in due])
    with transaction(sessions) as session:
        count_ended_attempts(session)
        queue.forget_workers(session)
    with transaction(sessions) as session:
        queue.remove_old_events(session, settings.event_retention_days)
    for job_id, queue_name in due:
        send_hint(job_id, queue_name)
    return len(due)


@app.task(name="secateur.dispatch", ignore_result=True)  # type: ignore[untyped-decorator]
def dispatch_task() -> None:
    global _sessions
    alive.touch("dispatcher")
    settings = get_settings()
    if _sessions is None:
        _sessions = session_factory(settings, "dispatcher")
    try:
        for chore in CHORES:  # first: they need no broker
            chore.start_if_due(_sessions, settings)
        dispatch(_sessions, settings, hint_sender(app, settings.hint_stale_seconds))
    except Exception as error:  # the database or the broker is away: the next round comes in seconds
        logger.warning("dispatch failed", error=str(error))


@beat_embedded_init.connect  # type: ignore[untyped-decorator]
def _leave_with_parent(**_: Any) -> None:
    """The clock is a process forked from the dispatcher; alone it would fill the broker."""
    follow_parent(_DISPATCHER, lambda: os._exit(1))
