"""A worker: the task a hint starts, and the signs of life of the process that runs it.

A hint does not name the job to run, it only says that there is work: the task claims the best eligible job, and goes on
claiming until there is none. So one hint that arrives is enough for a whole queue, any number of others may be lost or
come twice, and the next job starts as soon as one ends without a way through the broker.

A worker that is shut down (SIGTERM) does not finish its job, which may take hours: it gives it back to the queue. One
that is killed leaves its job to the lease; Celery sees to it that the pool's process dies with its parent, and the
runner dies with the pool's process.
"""

import contextlib
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import psutil
import structlog
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from core.artifacts.store import LocalStore
from core.database import new_id, session_factory, transaction
from core.jobs import queue
from core.jobs.broker import CONTROL_QUEUE, PRUNE_TASK
from core.settings import Settings, get_settings
from worker.app import app
from worker.supervisor import Supervisor

WORKER_ID = new_id("worker")
"""Made in the parent and inherited by its pool process: both speak for one worker."""

HEARTBEAT_SECONDS = 10.0

_leaving = threading.Event()
_heart: threading.Thread | None = None

logger = structlog.get_logger()


@app.task(name=PRUNE_TASK, ignore_result=True)  # type: ignore[untyped-decorator]
def prune(job_id: str) -> None:
    """Run eligible jobs of this worker's queue, one after the other, until there is none.

    SIGTERM is taken over only here: the pool installs its own handler, which ends the process, after every hook.
    """
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    try:
        run_eligible_jobs(get_settings(), stop)
    finally:
        signal.signal(signal.SIGTERM, before)


def run_eligible_jobs(settings: Settings, stop: threading.Event) -> None:
    """A database that is away ends the run: the dispatcher sends the next hint when it is back."""
    sessions = session_factory(settings)
    supervisor = Supervisor(settings, sessions, LocalStore(settings.store_root), stop=stop)
    try:
        while not stop.is_set():
            with transaction(sessions) as session:
                claim = queue.claim(
                    session, queue=settings.worker_queue, worker_id=WORKER_ID, lease_seconds=settings.lease_seconds
                )
            if claim is None:
                return
            supervisor.run(claim)
    except SQLAlchemyError as error:
        logger.warning("cannot claim", error=str(error))
    finally:
        sessions.kw["bind"].dispose()


@worker_ready.connect  # type: ignore[untyped-decorator]
def _enter_parent(sender: Any, **_: Any) -> None:
    if CONTROL_QUEUE in sender.app.amqp.queues.consume_from:
        return  # this is the dispatcher
    global _heart
    _heart = threading.Thread(target=_give_signs_of_life, args=(get_settings(),), name="heartbeat", daemon=True)
    _heart.start()
    with contextlib.suppress(Exception):  # jobs may have waited for a worker; without this the dispatcher hints later
        app.send_task(PRUNE_TASK, args=[""], queue=get_settings().worker_queue, retry=False)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _drain(**_: Any) -> None:
    """A warm shutdown waits for the pool's process; it is told to give its job back instead of finishing it."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(signal.SIGTERM)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _leave_parent(**_: Any) -> None:
    _leaving.set()
    if _heart is not None:
        _heart.join(timeout=5)


def _give_signs_of_life(settings: Settings) -> None:
    """Until the worker shuts down; then its row goes. Has an engine of its own, which no forked process inherits."""
    sessions = session_factory(settings)
    device = settings.device or ("cuda" if Path("/dev/nvidiactl").exists() else "cpu")
    wait = min(HEARTBEAT_SECONDS, settings.worker_fresh_seconds / 3)
    while True:
        with contextlib.suppress(SQLAlchemyError), transaction(sessions) as session:
            queue.heartbeat(
                session,
                WORKER_ID,
                queue=settings.worker_queue,
                device=device,
                hostname=socket.gethostname(),
                pid=os.getpid(),
            )
        if _leaving.wait(wait):
            break
    with contextlib.suppress(SQLAlchemyError), transaction(sessions) as session:
        queue.remove_worker(session, WORKER_ID)
    sessions.kw["bind"].dispose()
