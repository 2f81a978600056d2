"""The stages that jobs are in, followed in the database so closely that a fault can hit one."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psycopg

from core.database_url import libpq_url
from core.service.jobs.queue import EVENT_CHANNEL

_RECONNECT_SECONDS = 0.2
_RUNNING = """SELECT jobs.id, jobs.stage, workers.pid FROM jobs JOIN workers ON workers.id = jobs.worker_id
WHERE jobs.status = 'running'"""
_DONE = "SELECT EXISTS (SELECT FROM job_attempts WHERE ended_at > to_timestamp(%s) AND outcome = 'succeeded')"


@dataclass(frozen=True)
class Running:
    """A job and the name of its worker."""

    job: str
    worker: str


class StageWatch:
    """Held as a context; a thread of its own looks whenever some job's events are committed. `worker_of` names the
    worker with a process id, None where there is none any more.
    """

    def __init__(self, database_url: str, worker_of: Callable[[int], str | None]) -> None:
        self._worker_of = worker_of
        self._conninfo = libpq_url(database_url)
        self._running: list[tuple[str, str | None, int]] = []
        self._news = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="stage watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def wait_for(self, stage: str, seconds: float) -> Running | None:
        """Return a job that is in the stage, as soon as one is; None where none was in time. A job whose worker is gone
        stays in its stage until its lease runs out, and is none.
        """

        def found() -> Running | None:
            for job, at, pid in self._running:
                if at == stage and (worker := self._worker_of(pid)) is not None:
                    return Running(job, worker)
            return None

        with self._news:
            return self._news.wait_for(found, seconds)

    def has_succeeded_since(self, moment: float) -> bool:
        """Tell whether a job succeeded after a moment in seconds since the epoch; no while the database is away."""
        try:
            with psycopg.connect(self._conninfo, connect_timeout=2) as connection:
                row = connection.execute(_DONE, (moment,)).fetchone()
        except psycopg.Error:
            return False
        return row is not None and bool(row[0])

    def _follow(self) -> None:
        while not self._ended.is_set():
            try:
                with psycopg.connect(self._conninfo, autocommit=True, connect_timeout=2) as connection:
                    connection.execute(f"LISTEN {EVENT_CHANNEL}")
                    while not self._ended.is_set():
                        self._look(connection)
                        for _ in connection.notifies(timeout=0.5, stop_after=1):
                            pass
            except psycopg.Error:
                self._tell([])
            time.sleep(_RECONNECT_SECONDS)

    def _look(self, connection: psycopg.Connection[tuple[str, str | None, int]]) -> None:
        self._tell(connection.execute(_RUNNING).fetchall())

    def _tell(self, running: list[tuple[str, str | None, int]]) -> None:
        with self._news:
            self._running = running
            self._news.notify_all()
