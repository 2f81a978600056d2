"""Clock of the dispatcher, `python -m worker.dispatcher`: a loop over PostgreSQL that runs duties when they are due.

It is a process of its own in every mode. The broker is needed only to send hints: while it is away, leases still
expire, webhooks are sent and triggers fire. No duty has to run exactly once, so any number of dispatchers may run.

Each duty has a thread of its own, so that a slow, failing or hanging duty does not delay others. A due duty starts at
the dispatcher's next round, unless its last run is not over. A failure is logged, and the duty runs again later. The
time of each duty's last success is stored for metrics.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.database import session_factory, transaction
from core.logs import configure_logs
from core.service.discoveries.queue import forget_old
from core.service.duties.isolation import IsolatedRows, forget_old_failures
from core.service.duties.team_threads import TeamThreads
from core.service.duties.times import forget_others, note_done, note_tried
from core.service.jobs import queue
from core.service.jobs.broker import celery_app
from core.service.jobs.estimates.corrections import DUTY as ESTIMATES
from core.service.jobs.estimates.corrections import correct_needs, leave_as_estimated, uncorrected_jobs
from core.service.jobs.fleet import DUTY as TOTALS
from core.service.jobs.fleet import count_ended_attempts, leave_out, uncounted_attempts
from core.service.jobs.hints import Hints, hint_or_note
from core.service.jobs.idempotency import expire_idempotency_keys
from core.service.jobs.resolution.hub_lookup import HubLookup
from core.service.jobs.schemas import Job
from core.service.jobs.undiscovered import DUTY as AWAITING
from core.service.jobs.undiscovered import resolve_awaiting
from core.service.publications.run import publish_waiting
from core.service.questions.queue import forget_unused
from core.service.retention.orphans import sweep_orphans
from core.service.retention.service import DUTY as RETENTION
from core.service.retention.service import apply_retention
from core.service.retention.unknown import count_unknown
from core.service.sources.hub_revisions import forget_unused_revisions
from core.service.sweeps.advance import DUTY as SWEEPS
from core.service.sweeps.advance import advance_sweeps
from core.service.teams.installation import open_own_store
from core.service.teams.server_secret import server_secret
from core.service.triggers.context import TriggerContext
from core.service.triggers.due import DUTY as TRIGGERS
from core.service.triggers.due import fire_due
from core.service.triggers.history import remove_old_firings
from core.service.webhooks.delivery_log import remove_old_deliveries
from core.service.webhooks.delivery_loop import DUTY as WEBHOOKS
from core.service.webhooks.delivery_loop import deliver_due
from core.settings import Settings, get_settings
from worker import alive

logger = structlog.get_logger()

PUBLISHERS = 3
"""Number of publications that run at the same time."""
RECORD_SECONDS = 5.0
"""Shortest time between two records of a duty's success."""


@dataclass(frozen=True)
class DutyRun:
    """One run of a duty; a long run calls `goes_well` repeatedly while it makes progress."""

    sessions: sessionmaker[Session]
    settings: Settings
    goes_well: Callable[[], None] = lambda: None


@dataclass
class Duty:
    """Duty whose `run` is called in a thread about every `every_seconds`; results other than None are logged."""

    name: str
    every_seconds: float
    run: Callable[[DutyRun], int | None]
    _due: float = field(default=0.0, init=False)
    _recorded_at: float | None = field(default=None, init=False)
    _is_known: bool = field(default=False, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start_if_due(self, sessions: sessionmaker[Session], settings: Settings) -> None:
        if time.monotonic() < self._due or (self._thread is not None and self._thread.is_alive()):
            return
        self._due = time.monotonic() + 0.9 * self.every_seconds  # a round may come a little early
        self._thread = threading.Thread(target=self._run, args=(sessions, settings), name=self.name, daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until the run that was started is over."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self, sessions: sessionmaker[Session], settings: Settings) -> None:
        run = DutyRun(sessions, settings, lambda: self._record_success(sessions))
        try:
            if not self._is_known:
                with transaction(sessions) as session:
                    note_tried(session, self.name, self.every_seconds)
                self._is_known = True
            done = self.run(run)
            run.goes_well()
            if done is not None:
                logger.info("duty done", duty=self.name, count=done)
        except Exception as error:  # the database, the broker or a store is away: the duty runs again later
            logger.warning("duty failed", duty=self.name, error=str(error))

    def _record_success(self, sessions: sessionmaker[Session]) -> None:
        now = time.monotonic()
        if self._recorded_at is not None and now < self._recorded_at + min(RECORD_SECONDS, self.every_seconds):
            return
        try:
            with transaction(sessions) as session:
                note_done(session, self.name, self.every_seconds)
        except SQLAlchemyError as error:
            logger.warning("duty not noted", duty=self.name, error=str(error).partition("\n")[0])
            return
        self._recorded_at = now


def return_expired_leases(run: DutyRun) -> None:
    rows = IsolatedRows(run.sessions, queue.LEASES)
    for job_id in chain.from_iterable(rows.run_together(queue.expire_leases, queue.lost_leases)):
        logger.warning("lease expired", job=job_id)


def count_ended(run: DutyRun) -> None:
    """Add ended attempts to the totals."""
    IsolatedRows(run.sessions, TOTALS).run_together(count_ended_attempts, uncounted_attempts, leave_out)


def correct_estimates(run: DutyRun) -> None:
    """Correct the needs of jobs that wait."""
    IsolatedRows(run.sessions, ESTIMATES).run_together(correct_needs, uncorrected_jobs, leave_as_estimated)


def send_due_hints(run: DutyRun, hints: Hints) -> None:
    """Send hints for waiting jobs without a hint, until their queue has as many hints as there are such jobs.

    The broker is asked first: if it is away no row is marked, and the hints are sent when it is back. Rows are marked
    and committed before the hints are sent, since a fast worker would skip a row that is still locked.
    """
    with transaction(run.sessions) as session:
        due = queue.hints_due(session, run.settings.hint_stale_seconds)
    for name, jobs in groupby(due, key=lambda each: each[1]):
        waiting = [job_id for job_id, _ in jobs]
        chosen = waiting[: max(0, len(waiting) - hints.count_waiting(name))]
        if chosen:
            with transaction(run.sessions) as session:
                queue.mark_dispatched(session, chosen)
        for job_id in chosen:
            hints.send(job_id, name, enough=len(waiting))


def _in_transaction(work: Callable[[Session], object]) -> Callable[[DutyRun], None]:
    def run_in_transaction(run: DutyRun) -> None:
        with transaction(run.sessions) as session:
            work(session)

    return run_in_transaction


def make_duties(sessions: sessionmaker[Session], settings: Settings) -> Sequence[Duty]:
    """Return all duties; those at the beginning run in every round."""
    hints = Hints(celery_app(settings))
    hub = HubLookup(settings, sessions)
    store = open_own_store(settings, sessions)
    context = TriggerContext(sessions, store, settings, hub, server_secret(settings))

    threads = TeamThreads()

    def advance(run: DutyRun) -> int | None:
        return advance_sweeps(context, send_hint=hints.send, threads=threads) or None

    def resolve(run: DutyRun) -> int | None:
        return resolve_awaiting(context, send_hint=hints.send, threads=threads) or None

    def fire(run: DutyRun) -> int | None:
        def hint(job: Job) -> None:
            hint_or_note(hints.send, sessions, job.id, job.queue)

        return fire_due(context, hint, threads=threads) or None

    def forget_old_duties(session: Session) -> None:
        forget_others(session, [duty.name for duty in duties])
        forget_old_failures(session)

    def forget_revisions(run: DutyRun) -> None:
        with transaction(sessions) as session:
            forget_unused_revisions(session, settings.hub_revision_keep_days)

    often = settings.dispatch_interval_seconds
    duties = (
        Duty(queue.LEASES, often, return_expired_leases),
        Duty("hints", often, lambda run: send_due_hints(run, hints)),
        Duty("idempotency keys", often, _in_transaction(expire_idempotency_keys)),
        Duty(TOTALS, often, count_ended),
        Duty(ESTIMATES, often, correct_estimates),
        Duty("silent workers", often, _in_transaction(queue.forget_workers)),
        Duty("old events", often, _in_transaction(lambda s: queue.remove_old_events(s, settings.event_retention_days))),
        Duty("old duties", 600.0, _in_transaction(forget_old_duties)),
        Duty(
            "orphans",
            settings.orphan_sweep_seconds,
            lambda run: len(sweep_orphans(sessions, store, settings)),
        ),
        Duty("unknown artifacts", 3600.0, lambda run: count_unknown(sessions, store)),
        Duty(AWAITING, 2.0, resolve),
        Duty("old hub revisions", 600.0, forget_revisions),
        Duty("old discoveries", 600.0, _in_transaction(lambda s: forget_old(s, settings.discovery_keep_days))),
        Duty("old questions", 600.0, _in_transaction(forget_unused)),
        Duty(SWEEPS, 1.5, advance),
        Duty(TRIGGERS, 2.0, fire),
        Duty("old firings", 60.0, _in_transaction(lambda s: remove_old_firings(s, settings.trigger_history_days))),
        Duty(WEBHOOKS, 1.0, lambda run: deliver_due(sessions, settings, run.goes_well)),
        Duty("old deliveries", 600.0, lambda run: remove_old_deliveries(sessions, settings)),
        Duty(RETENTION, 60.0, lambda run: apply_retention(sessions, settings, run.goes_well)),
        *(
            Duty(f"publications {number}", 2.0, lambda run: publish_waiting(sessions, settings, run.goes_well))
            for number in range(1, PUBLISHERS + 1)
        ),
    )
    return duties


def go_round(
    sessions: sessionmaker[Session], settings: Settings, duties: Sequence[Duty], stop: threading.Event
) -> None:
    """Start the duties that are due, again and again.

    A round waits for nothing. So it always ends, unless this process hangs.
    """
    while not stop.is_set():
        for duty in duties:
            duty.start_if_due(sessions, settings)
        alive.touch("dispatcher", settings)
        stop.wait(settings.dispatch_interval_seconds)


def main() -> None:
    settings = get_settings()
    configure_logs(settings)
    alive.forget(alive.DISPATCHER, settings)  # remove the sign of life of an earlier container
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    sessions = session_factory(settings, "dispatcher")
    go_round(sessions, settings, make_duties(sessions, settings), stop)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # running duties end as with SIGKILL, which each of them survives
