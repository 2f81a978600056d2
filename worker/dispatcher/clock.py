"""The clock: `python -m worker.dispatcher`, a loop over PostgreSQL that has what is due done.

A process of its own in every mode. The broker is needed for nothing but sending hints; while it is away leases expire,
webhooks are sent and triggers fire as ever. Nothing here must happen exactly once: any number of dispatchers may run.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import groupby

import structlog
from sqlalchemy.orm import Session, sessionmaker

from core.database import session_factory, transaction
from core.logs import configure_logs
from core.service.discoveries.queue import forget_old
from core.service.jobs import queue
from core.service.jobs.awaiting import resolve_awaiting
from core.service.jobs.broker import celery_app
from core.service.jobs.duties import forget_others
from core.service.jobs.estimates.corrections import correct_needs
from core.service.jobs.fleet import count_ended_attempts
from core.service.jobs.hints import Hints, hint_or_note
from core.service.jobs.idempotency import expire_idempotency_keys
from core.service.jobs.resolution.hub_lookup import HubLookup
from core.service.publications.run import publish_waiting
from core.service.retention.orphans import sweep_orphans
from core.service.retention.service import apply_retention
from core.service.sweeps.advance import advance_sweeps
from core.service.teams.server_secret import server_secret
from core.service.triggers.context import TriggerContext
from core.service.triggers.due import fire_due
from core.service.triggers.history import remove_old_firings
from core.service.webhooks.delivery_loop import deliver_due, remove_old_deliveries
from core.settings import Settings, get_settings
from core.storage import open_store
from worker import alive
from worker.dispatcher.duties import Duty, Turn

logger = structlog.get_logger()

PUBLISHERS = 3
"""Publications on their way at once."""


def return_expired_leases(turn: Turn) -> None:
    with transaction(turn.sessions) as session:
        lost = queue.expire_leases(session)
    for job_id in lost:
        logger.warning("lease expired", job=job_id)


def send_due_hints(turn: Turn, hints: Hints) -> None:
    """Send hints for jobs that wait without one, until as many lie in their queue as there are such jobs.

    The broker is asked first: where it is away nothing is marked, and the hints go once it is back. Rows are marked and
    committed before the hints go, since a quick worker would skip a row still locked.
    """
    with transaction(turn.sessions) as session:
        due = queue.hints_due(session, turn.settings.hint_stale_seconds)
    for name, jobs in groupby(due, key=lambda each: each[1]):
        waiting = [job_id for job_id, _ in jobs]
        chosen = waiting[: max(0, len(waiting) - hints.lying(name))]
        if chosen:
            with transaction(turn.sessions) as session:
                queue.mark_dispatched(session, chosen)
        for job_id in chosen:
            hints.send(job_id, name, enough=len(waiting))


def _fire_triggers(turn: Turn, context: TriggerContext, hints: Hints) -> int | None:
    fired = 0
    for job in fire_due(context):
        hint_or_note(hints.send, turn.sessions, job.id, job.queue)
        fired += 1
    return fired or None


def _in_transaction(work: Callable[[Session], object]) -> Callable[[Turn], None]:
    def run(turn: Turn) -> None:
        with transaction(turn.sessions) as session:
            work(session)

    return run


def make_duties(sessions: sessionmaker[Session], settings: Settings) -> Sequence[Duty]:
    """Return all duties; the first come with every round."""
    hints = Hints(celery_app(settings))
    hub = HubLookup(settings, sessions)
    context = TriggerContext(sessions, open_store(settings), settings, hub, server_secret(settings))

    def advance(turn: Turn) -> int | None:
        return advance_sweeps(sessions, settings, store=context.store, hub=hub, send_hint=hints.send) or None

    def resolve(turn: Turn) -> int | None:
        return resolve_awaiting(sessions, settings, store=context.store, hub=hub, send_hint=hints.send) or None

    def forget_old_duties(session: Session) -> None:
        forget_others(session, [duty.name for duty in duties])

    often = settings.dispatch_interval_seconds
    duties = (
        Duty("leases", often, return_expired_leases),
        Duty("hints", often, lambda turn: send_due_hints(turn, hints)),
        Duty("idempotency keys", often, _in_transaction(expire_idempotency_keys)),
        Duty("totals", often, _in_transaction(count_ended_attempts)),
        Duty("estimates", often, _in_transaction(correct_needs)),
        Duty("silent workers", often, _in_transaction(queue.forget_workers)),
        Duty("old events", often, _in_transaction(lambda s: queue.remove_old_events(s, settings.event_retention_days))),
        Duty("old duties", 600.0, _in_transaction(forget_old_duties)),
        Duty(
            "orphans",
            settings.orphan_sweep_seconds,
            lambda turn: len(sweep_orphans(sessions, context.store, settings)),
        ),
        Duty("discovered models", 2.0, resolve),
        Duty("old discoveries", 600.0, _in_transaction(lambda s: forget_old(s, settings.discovery_keep_days))),
        Duty("sweeps", 1.5, advance),
        Duty("triggers", 2.0, lambda turn: _fire_triggers(turn, context, hints)),
        Duty("old firings", 60.0, _in_transaction(lambda s: remove_old_firings(s, settings.trigger_history_days))),
        Duty("webhooks", 1.0, lambda turn: deliver_due(sessions, settings, turn.goes_well)),
        Duty("old deliveries", 600.0, lambda turn: remove_old_deliveries(sessions, settings)),
        Duty("retention", 600.0, lambda turn: apply_retention(sessions, settings)),
        *(
            Duty(f"publications {number}", 2.0, lambda turn: publish_waiting(sessions, settings, turn.goes_well))
            for number in range(1, PUBLISHERS + 1)
        ),
    )
    return duties


def go_round(
    sessions: sessionmaker[Session], settings: Settings, duties: Sequence[Duty], stop: threading.Event
) -> None:
    """Start what is due, again and again. A round waits for nothing, so it ends unless this process stands still."""
    while not stop.is_set():
        for duty in duties:
            duty.start_if_due(sessions, settings)
        alive.touch("dispatcher", settings)
        stop.wait(settings.dispatch_interval_seconds)


def main() -> None:
    settings = get_settings()
    configure_logs(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    sessions = session_factory(settings, "dispatcher")
    go_round(sessions, settings, make_duties(sessions, settings), stop)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # duties under way end as they would by SIGKILL, which each of them stands
