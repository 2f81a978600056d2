"""Worker: the task that a hint starts, and the heartbeat of the process that runs it.

A hint does not name a job, it only says that there is work. The task claims the best eligible job, and continues until
there is none. So one hint is enough for a whole queue, any number of hints may be lost or repeated, and the next job
starts without the broker as soon as one ends. If no hint comes, the worker polls every few seconds
(`supervisor/job_poller.py`).

A worker that is shut down (SIGTERM), or whose device failed, does not finish its job, which may take hours: it gives
the job back to the queue. If a worker is killed, the lease on its job runs out. Celery makes the pool's process die
with its parent, and the runner dies with the pool's process.
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
from core.signing import read_signer
from core.storage import OwnedStore, open_store
from worker.app import app
from worker.devices import DeviceReader
from worker.machine import disk_room_bytes, disk_shortage, empty_cache, seclusion_refusal
from worker.runner.client import RUNNER
from worker.supervisor.discoverer import Discoverer
from worker.supervisor.drain import Drain
from worker.supervisor.heartbeat import Heartbeat
from worker.supervisor.job_poller import JobPoller
from worker.supervisor.request_taker import RequestTaker
from worker.supervisor.sample_fetcher import SampleFetcher
from worker.supervisor.supervisor import Supervisor
from worker.supervisor.token_counter import TokenCounter
from worker.supervisor.tracer import ClassifierTracer

WORKER_ID = new_id("worker")
"""Id that the parent creates and its pool process inherits, so that both act as one worker."""


@dataclass(frozen=True)
class Connections:
    """Connections of the pool's process, opened for its first hint and kept; new ones each time would delay jobs."""

    sessions: sessionmaker[Session]
    store: OwnedStore


_CLAIM_RETRY_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds before a blocked claim is retried; up to half less, at random."""

_heartbeat: Heartbeat | None = None
_poller: JobPoller | None = None
_request_threads: list[RequestTaker[Any]] = []
"""Threads that take requests besides jobs: discoveries, samples, traces and counts."""
_connections: Connections | None = None
_drain = Drain()
"""State of the drain, in memory that the parent shares with the pool's process; so both see a drain at any time."""
_device: DeviceReader | None = None
"""Connections of the pool's process, opened for its first hint."""
_is_running_jobs = mmap.mmap(-1, 1)
"""Shared flag: 1 while the pool's process looks for jobs or runs one, and takes SIGTERM as an order to end.

At other times SIGTERM would kill it while it holds the lock of the pool's queue, and the worker would never end.
"""

logger = structlog.get_logger()


@app.task(name=PRUNE_TASK, ignore_result=True)  # type: ignore[untyped-decorator]
def prune(job_id: str) -> None:
    run_jobs()


def run_jobs() -> None:
    """Run eligible jobs of this worker's queue, one after the other, until there is none.

    The handler of SIGTERM is set only here, because the pool installs its own, which ends the process, after every
    hook.
    """
    global _connections, _device
    settings = get_settings()
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    _is_running_jobs[0] = 1
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
        _is_running_jobs[0] = 0
        if not _drain.has_begun:  # otherwise the signal may be on its way
            signal.signal(signal.SIGTERM, before)


def run_eligible_jobs(settings: Settings, connections: Connections, stop: threading.Event) -> None:
    """Claim and run jobs until none is eligible; if the database is away, stop until the next hint or poll."""
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
    """Return why this worker's device can no longer be used; from then on the worker drains."""
    device = None if _device is None else _device.read()
    if device is None or device.failure is None:
        return None
    _drain.begin(device.failure)
    return device.failure


def claim_next(settings: Settings, sessions: sessionmaker[Session]) -> queue.Claim | None:
    """Claim the best eligible job; None if there is none or this worker's disk is nearly full.

    If only jobs are left whose team's row is locked, it tries again a few times. Each try is a transaction of its own,
    so that no other worker has to wait meanwhile.
    """
    for seconds in _CLAIM_RETRY_SECONDS:
        try:
            return _claim_next(settings, sessions)
        except queue.JobsLocked:
            time.sleep(random.uniform(0.5, 1) * seconds)
    return None


def _claim_next(settings: Settings, sessions: sessionmaker[Session]) -> queue.Claim | None:
    empty_cache(settings)
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
    """Start of a worker before its consumer: heartbeat, poll and threads work even without a broker."""

    requires: Sequence[str] = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        global _heartbeat, _poller
        settings = get_settings()
        if settings.signing_key is not None:
            read_signer(settings.signing_key)  # before the first job, not after it
        if (reason := seclusion_refusal()) is not None:
            logger.warning("runners are not kept from the network", reason=reason)
        pool: BasePool = parent.pool
        _poller = JobPoller(pool, run_jobs, settings.worker_poll_seconds)
        leave_queue = partial(_leave_queue, parent, settings.worker_queue)
        _request_threads.extend(
            [
                Discoverer(WORKER_ID, settings),
                SampleFetcher(WORKER_ID, settings),
                ClassifierTracer(open_store(settings), settings),
                TokenCounter(open_store(settings), settings),
            ]
        )
        threads: tuple[JobPoller | RequestTaker[Any], ...] = (_poller, *_request_threads)
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
    """Tell the pool's process to give its job back, because a warm shutdown would wait until the job is finished."""
    _drain.begin()
    _stop_threads()
    if _heartbeat is not None:
        _heartbeat.beat_now()


def _leave_queue(worker: Any, queue_name: str) -> None:
    """Give the job back and take no more jobs or hints, so that other workers get them; the process stays.

    It reports the reason until somebody repairs the device and ends the process; a new process would have the same
    fault.
    """
    _stop_threads()
    consumer = worker.consumer
    consumer.call_soon(consumer.cancel_task_queue, queue_name)


def _stop_threads() -> None:
    if _poller is not None:
        _poller.stop()
    for taker in _request_threads:
        taker.stop()
    for child in psutil.Process().children() if _is_running_jobs[0] else ():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(signal.SIGTERM)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _leave_parent(**_: Any) -> None:
    for taker in _request_threads:
        taker.stop()
    for taker in _request_threads:
        taker.wait(5)
    if _heartbeat is not None:
        _heartbeat.stop(5)
