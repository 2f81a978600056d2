"""A worker: the task a hint starts, and the signs of life of the process that runs it.

A hint does not name the job to run, it only says that there is work: the task claims the best eligible job, and goes on
claiming until there is none. So one hint that arrives is enough for a whole queue, any number of others may be lost or
come twice, and the next job starts as soon as one ends without a way through the broker. Where no hint comes, the
worker looks by itself every few seconds (`supervisor/job_poller.py`).

A worker that is shut down (SIGTERM), or whose device failed, does not finish its job, which may take hours: it gives it
back to the queue. One that is killed leaves its job to the lease; Celery sees to it that the pool's process dies with
its parent, and the runner dies with the pool's process.
"""

import contextlib
import mmap
import random
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
import structlog
from celery import bootsteps
from celery.concurrency.base import BasePool
from celery.signals import worker_shutdown, worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core import telemetry
from core.database import new_id, session_factory, transaction
from core.service.jobs import queue
from core.service.jobs.broker import PRUNE_TASK
from core.service.teams.installation import open_own_store
from core.settings import Settings, get_settings
from core.storage import OwnedStore, open_store
from worker.app import app
from worker.devices import DeviceReader
from worker.machine import disk_room_bytes, disk_shortage, seclusion_refusal
from worker.runner.client import RUNNER
from worker.supervisor.discoverer import Discoverer
from worker.supervisor.drain import Drain
from worker.supervisor.heartbeat import Heartbeat
from worker.supervisor.job_poller import JobPoller
from worker.supervisor.request_taker import RequestTaker
from worker.supervisor.sample_fetcher import SampleFetcher
from worker.supervisor.supervisor import Supervisor
from worker.supervisor.tracer import PassTracer, Tracer

WORKER_ID = new_id("worker")
"""Made in the parent and inherited by its pool process: both speak for one worker."""


@dataclass(frozen=True)
class Connections:
    """Connections of the pool's process, made for its first hint and kept: new ones for each would delay jobs."""

    sessions: sessionmaker[Session]
    store: OwnedStore


_CLAIM_RETRY_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Before a claim that others held up is tried again; at random by up to half less."""

_heartbeat: Heartbeat | None = None
_poller: JobPoller | None = None
_takers: list[RequestTaker[Any]] = []
"""Threads that take requests besides jobs: of discoveries, and of samples."""
_connections: Connections | None = None
_drain = Drain()
"""Shared with the pool's process: one that was forked since it began, or has a hint before it, would not know."""
_device: DeviceReader | None = None
"""The pool's process's own, made for its first hint."""
_is_looking = mmap.mmap(-1, 1)
"""Shared likewise: 1 while the pool's process looks for jobs or runs one, and takes SIGTERM for an order to end.
Else SIGTERM would end it, with the lock on the pool's queue in its hands, and the worker would never end."""

logger = structlog.get_logger()


@app.task(name=PRUNE_TASK, ignore_result=True)  # type: ignore[untyped-decorator]
def prune(job_id: str) -> None:
    look()


def look() -> None:
    """Run eligible jobs of this worker's queue, one after the other, until there is none.

    SIGTERM is taken over only here: the pool installs its own handler, which ends the process, after every hook.
    """
    global _connections, _device
    settings = get_settings()
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    _is_looking[0] = 1
    try:
        if _connections is None:
            telemetry.configure(settings, "worker")
            sessions = session_factory(settings, "worker")
            _connections = Connections(sessions, open_own_store(settings, sessions))
            _device = DeviceReader(settings)
            _find_failure()
        with structlog.contextvars.bound_contextvars(worker=WORKER_ID):
            run_eligible_jobs(settings, _connections, stop)
        telemetry.flush()
    except Exception as error:
        logger.exception("looking for jobs failed", error=str(error))
    finally:
        _is_looking[0] = 0
        if not _drain.has_begun:  # else the signal may be on its way
            signal.signal(signal.SIGTERM, before)


def run_eligible_jobs(settings: Settings, connections: Connections, stop: threading.Event) -> None:
    """Claim and run jobs until none is eligible. A database that is away ends the run: the next look comes."""
    supervisor = Supervisor(
        settings, connections.sessions, connections.store, stop=stop, runner=RUNNER, find_failure=_find_failure
    )
    try:
        while not stop.is_set() and not _drain.has_begun:
            if (refusal := connections.store.refusal()) is not None:
                with transaction(connections.sessions) as session:
                    queue.set_worker_state(session, WORKER_ID, "paused", reason=refusal)
                return
            claim = claim_next(settings, connections.sessions)
            if claim is None:
                return
            supervisor.run(claim)
    except SQLAlchemyError as error:
        logger.warning("cannot claim", error=str(error).partition("\n")[0])


def _find_failure() -> str | None:
    """Return why this worker's device is of no more use, as it is now; the worker drains from then on."""
    device = None if _device is None else _device.read()
    if device is None or device.failure is None:
        return None
    _drain.begin(device.failure)
    return device.failure


def claim_next(settings: Settings, sessions: sessionmaker[Session]) -> queue.Claim | None:
    """Claim the best eligible job; None where there is none or this worker's disk is nearly full.

    Where jobs may run whose teams' rows are held, by an attempt that ends this moment or by whomever for longer, it
    asks again a few times: in transactions of their own, so that no other worker waits for its turn meanwhile.
    """
    for seconds in _CLAIM_RETRY_SECONDS:
        try:
            return _claim_next(settings, sessions)
        except queue.JobsLocked:
            time.sleep(random.uniform(0.5, 1) * seconds)
    return None


def _claim_next(settings: Settings, sessions: sessionmaker[Session]) -> queue.Claim | None:
    shortage = disk_shortage(settings)
    started = time.monotonic()
    with transaction(sessions) as session:
        if shortage is not None:
            queue.set_worker_state(session, WORKER_ID, "paused", reason=shortage)
            return None
        claim = queue.claim(
            session,
            queue=settings.worker_queue,
            worker_id=WORKER_ID,
            lease_seconds=settings.lease_seconds,
            disk_free_bytes=disk_room_bytes(settings),
            fresh_seconds=settings.worker_fresh_seconds,
            max_wait_seconds=settings.admission_max_wait_seconds,
        )
        job_id = None if claim is None else claim.job_id
        queue.set_worker_state(session, WORKER_ID, "idle" if claim is None else "busy", job_id=job_id)
    if claim is not None:
        telemetry.record("job.claim", time.monotonic() - started, parent=claim.traceparent)
    return claim


class Enter(bootsteps.StartStopStep):  # type: ignore[misc]
    """A worker's beginning, before its consumer: whether or not there is a broker, it gives signs of life and looks."""

    requires: Sequence[str] = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        global _heartbeat, _poller
        settings = get_settings()
        if (reason := seclusion_refusal()) is not None:
            logger.warning("runners are not kept from the network", reason=reason)
        pool: BasePool = parent.pool
        _poller = JobPoller(pool, look, settings.worker_poll_seconds)
        leave_queue = partial(_leave_queue, parent, settings.worker_queue)
        _takers.extend(
            [
                Discoverer(WORKER_ID, settings),
                SampleFetcher(WORKER_ID, settings),
                Tracer(open_store(settings), settings),
                PassTracer(open_store(settings), settings),
            ]
        )
        threads: tuple[JobPoller | RequestTaker[Any], ...] = (_poller, *_takers)
        _heartbeat = Heartbeat(
            WORKER_ID,
            settings,
            _drain,
            on_space=_poller.poll_now,
            on_failure=leave_queue,
            is_running=lambda: all(thread.is_running() for thread in threads),
        )
        _heartbeat.start()
        for thread in threads:
            thread.start()


app.steps["worker"].add(Enter)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _begin_drain(**_: Any) -> None:
    """Tell the pool's process, which a warm shutdown waits for, to give its job back instead of finishing it."""
    _drain.begin()
    _stop_taking()
    if _heartbeat is not None:
        _heartbeat.beat_now()


def _leave_queue(worker: Any, queue_name: str) -> None:
    """Give the job back and take neither jobs nor hints any more, which others can follow; the process stays.

    It tells why until somebody has seen to the device and ends it: one that was started anew would have the same.
    """
    _stop_taking()
    consumer = worker.consumer
    consumer.call_soon(consumer.cancel_task_queue, queue_name)


def _stop_taking() -> None:
    if _poller is not None:
        _poller.stop()
    for taker in _takers:
        taker.stop()
    for child in psutil.Process().children() if _is_looking[0] else ():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(signal.SIGTERM)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _leave_parent(**_: Any) -> None:
    for taker in _takers:
        taker.stop()
    for taker in _takers:
        taker.wait(5)
    if _heartbeat is not None:
        _heartbeat.stop(5)
