"""Heartbeat of a worker: a thread of its parent process that reports its facts and state until it ends.

It waits for nothing but the database. What may wait for a disk or the store is done by a thread of its own, *upkeep*;
while that hangs, the heartbeat reports what was seen last.
"""

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from importlib.metadata import version

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.database import session_factory, transaction
from core.device_kinds import CPU, kind_of_machine
from core.engine.exporters.registry import installed_runtimes
from core.engine.quantization.settings import LIBRARY
from core.service.jobs import queue
from core.service.teams.installation import open_own_store
from core.settings import Settings
from core.storage import OwnedStore
from secateur_wire.errors import DiskFull
from worker import alive
from worker.devices import DeviceReader, own_device
from worker.machine import disk_room_bytes, disk_shortage, empty_cache, is_below_watermark, usable_memory_bytes
from worker.pace import operations_per_second
from worker.supervisor.drain import Drain
from worker.supervisor.work_folders import WorkFigures, WorkFolders

BEAT_SECONDS = 10.0
_FIRST_SECONDS = 10.0
_UPKEEP_SECONDS = 1.0
"""Longest time that a heartbeat waits for the upkeep, which is usually done within milliseconds."""

logger = structlog.get_logger()


class Heartbeat:
    """Thread that sends the worker's heartbeat every few seconds once started.

    `on_space` is called when a full disk has space again, because no hint may come soon for jobs that wait.
    `on_failure` is called once if the worker drains because its device failed. If `is_running` returns False, the
    worker's file of `worker.alive` is not touched.
    """

    def __init__(
        self,
        worker_id: str,
        settings: Settings,
        drain: Drain,
        *,
        on_space: Callable[[], None],
        on_failure: Callable[[], None],
        is_running: Callable[[], bool] = lambda: True,
    ) -> None:
        self._worker_id = worker_id
        self._settings = settings
        self._drain = drain
        self._on_space = on_space
        self._on_failure = on_failure
        self._is_running = is_running
        self._has_failed = False
        self._device = DeviceReader(settings)
        self._own_device = own_device(settings)
        self._runtimes = installed_runtimes() + ([LIBRARY.name] if LIBRARY.is_installed else [])
        self._operations_per_second: float | None = None
        self._wake = threading.Event()
        self._ended = False
        self._shortage: str | None = None
        self._reported_shortage: str | None = None
        self._disk_free_bytes = 0
        self._work_figures = WorkFigures(0, 0)
        self._has_beaten = threading.Event()
        self._work = WorkFolders(settings.work_root)
        self._refusal: str | None = None
        self._sweep_at = 0.0
        self._upkeep: threading.Thread | None = None
        self._thread = threading.Thread(target=self._live, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start the heartbeat and wait for the first one; until then the queue does not know the worker's resources."""
        self._thread.start()
        self._has_beaten.wait(_FIRST_SECONDS)

    def beat_now(self) -> None:
        """Report the state at once, because it has changed."""
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Stop the heartbeat and remove the worker's row; wait for that up to `seconds`."""
        self._ended = True
        self._wake.set()
        self._thread.join(seconds)

    def _live(self) -> None:
        """Send heartbeats until ended, with a database engine of its own that no forked process inherits."""
        sessions = session_factory(self._settings, "worker")
        store = open_own_store(self._settings, sessions)
        wait = min(BEAT_SECONDS, self._settings.worker_fresh_seconds / 3)
        pace_at = time.monotonic() + wait  # not at once, when jobs may begin
        while not self._ended:
            try:
                self._give_sign_of_life()
                self._look_after(sessions, store, wait_seconds=min(_UPKEEP_SECONDS, wait))
                facts = self._facts()
                self._check_drain()
                with contextlib.suppress(SQLAlchemyError), transaction(sessions) as session:
                    self._beat(session, facts)
                self._report_shortage()
                if facts["device"] == CPU.name and time.monotonic() >= pace_at:
                    pace_at = math.inf
                    threading.Thread(target=self._measure_pace, name="pace", daemon=True).start()
            except Exception as error:  # the next heartbeat tries again
                logger.exception("a heartbeat failed", worker=self._worker_id, error=str(error))
            self._has_beaten.set()
            self._wake.wait(wait)
            self._wake.clear()
        with contextlib.suppress(SQLAlchemyError), transaction(sessions) as session:
            queue.remove_worker(session, self._worker_id)
        sessions.kw["bind"].dispose()

    def _measure_pace(self) -> None:
        """Measure what the processors do, in a process of its own, and report it."""
        self._operations_per_second = operations_per_second(self._settings)
        self._wake.set()

    def _give_sign_of_life(self) -> None:
        """Touch the worker's file, unless one of its threads has ended: its monitor then restarts the worker."""
        if self._is_running():
            alive.touch(alive.worker_name(self._own_device), self._settings)
        else:
            logger.error("a thread of the worker has ended: no signs of life any more", worker=self._worker_id)

    def _check_drain(self) -> None:
        if self._drain.reason is not None and not self._has_failed:
            self._has_failed = True
            logger.error("the device failed: the worker drains", worker=self._worker_id, reason=self._drain.reason)
            self._on_failure()

    def _check_store(self, store: OwnedStore) -> None:
        before, self._refusal = self._refusal, store.refusal()
        if self._refusal is not None and before is None:
            logger.error("claiming paused", worker=self._worker_id, reason=self._refusal)

    def _look_after(self, sessions: sessionmaker[Session], store: OwnedStore, *, wait_seconds: float) -> None:
        """Start the upkeep unless it still runs, and wait for it for a moment, so that the facts are usually new."""
        if self._upkeep is None or not self._upkeep.is_alive():
            self._upkeep = threading.Thread(target=self._keep_up, args=(sessions, store), name="upkeep", daemon=True)
            self._upkeep.start()
        self._upkeep.join(wait_seconds)

    def _keep_up(self, sessions: sessionmaker[Session], store: OwnedStore) -> None:
        """Look at disk and store, and free the disk: unused entries of the cache if it is short, then work folders."""
        try:
            self._look_at_disk()
            self._check_store(store)
            is_short = is_below_watermark(self._settings)
            if is_short or time.monotonic() >= self._sweep_at:
                self._sweep_at = time.monotonic() + self._settings.work_sweep_seconds
                empty_cache(self._settings)
                free = self._settings.disk_watermark_bytes if is_short else 0
                self._work.sweep(sessions, self._settings.resume_keep_seconds, free_bytes=free)
                self._look_at_disk()
                if self._shortage != self._reported_shortage:
                    self._wake.set()
        except Exception as error:  # the next heartbeat tries again
            logger.warning("disk and store not looked after", error=str(error).partition("\n")[0])

    def _look_at_disk(self) -> None:
        try:
            self._disk_free_bytes = disk_room_bytes(self._settings)
            self._work_figures = self._work.figures()
            self._shortage = disk_shortage(self._settings)
        except (OSError, DiskFull) as error:
            self._shortage = f"the disk of {self._settings.work_root} cannot be used: {error}"

    def _report_shortage(self) -> None:
        before, self._reported_shortage = self._reported_shortage, self._shortage
        if self._reported_shortage == before:
            return
        if self._reported_shortage is None:
            logger.info("disk has space again", worker=self._worker_id)
            self._on_space()
        elif before is None:
            logger.warning("claiming paused", worker=self._worker_id, reason=self._shortage)

    def _facts(self) -> queue.WorkerFacts:
        settings = self._settings
        device = self._device.read()
        if device is not None and device.failure is not None:
            self._drain.begin(device.failure)
        work = self._work_figures
        return {
            "queue": settings.worker_queue,
            "device": settings.device or (device.kind if device else kind_of_machine()).name,
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "device_id": self._own_device,
            "device_name": device.name if device else None,
            "device_memory_bytes": device.memory_bytes if device else None,
            "device_memory_used_bytes": device.memory_used_bytes if device else None,
            "device_utilisation": device.utilisation if device else None,
            "device_celsius": device.celsius if device else None,
            "device_uncorrected_errors": device.uncorrected_errors if device else None,
            "memory_bytes": usable_memory_bytes(settings),
            "disk_free_bytes": self._disk_free_bytes,
            "work_folders": work.folders,
            "work_bytes": work.bytes,
            "runtimes": self._runtimes,
            "operations_per_second": self._operations_per_second,
            "version": version("secateur-server"),
        }

    def _beat(self, session: Session, facts: queue.WorkerFacts) -> None:
        job_id = queue.job_of_worker(session, self._worker_id)
        state: queue.WorkerState = "idle"
        if self._drain.has_begun:
            state = "draining"
        elif job_id is not None:
            state = "busy"
        elif (self._refusal or self._shortage) is not None:
            state = "paused"
        reason = {"paused": self._refusal or self._shortage, "draining": self._drain.reason}.get(state)
        queue.heartbeat(session, self._worker_id, **facts, job_id=job_id, state=state, reason=reason)
