"""Records of a running attempt in the queue: stages, progress, events, and its end."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from core import telemetry
from core.database import transaction, transient_reason
from core.service.jobs import queue
from core.service.jobs.progress_curves import Curve
from secateur_wire.states import EventType, Stage
from worker.supervisor.lease import Lease
from worker.supervisor.time_left import WorkRecord

PROGRESS_SECONDS = 0.5
"""Shortest time between two progress events."""
SIGN_SECONDS = 4.0
"""Longest time between two progress events; with the delay of a sign of life it stays below five seconds."""
LONGEST_RETRY_SECONDS = 2.0

Answer = TypeVar("Answer")

logger = structlog.get_logger()


class LeaseLost(Exception):
    """Signal that the attempt is no longer this worker's: nothing more may be written for it."""


class Recorder:
    """Writer of one attempt's records to the queue.

    A write is retried while the database is away or its rows are locked, for as long as the lease would hold.
    `estimate` is the job's, with its seconds, and `curves` are those of past jobs; every event of progress has the time
    left.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        job_id: str,
        attempt: int,
        lease: Lease,
        estimate: Mapping[str, Any] | None = None,
        curves: Sequence[Curve] = (),
    ) -> None:
        self._sessions = sessions
        self._job_id = job_id
        self._attempt = attempt
        self._lease = lease
        self._progress = 0.0
        self._progress_at = 0.0
        self._written_at = time.monotonic()
        self._doing: str | None = None
        self._stage: Stage = "fetch"
        self._began = self._stage_at = self._entered_at = time.monotonic()
        self._work = WorkRecord(curves)
        self._part: tuple[float, float] | None = None
        self._estimated: float | None = None if estimate is None else estimate["seconds"]
        self._deviation: float | None = None if estimate is None else estimate["basis"]["seconds_deviation"]
        self._trace = telemetry.current_traceparent()
        self.stage_seconds: dict[str, float] = {}

    def enter(self, stage: Stage) -> None:
        """Begin a stage; the time of the stage before is added to its total."""
        self.leave()
        if stage != self._stage:
            self._trace_stage()
            self._stage, self._doing = stage, None
            self._checked(
                lambda session: (
                    self._lease.holds(session) and queue.set_stage(session, self._job_id, self._attempt, stage)
                )
            )

    def leave(self) -> None:
        """Add the time since the last call to the current stage."""
        now = time.monotonic()
        self.stage_seconds[self._stage] = self.stage_seconds.get(self._stage, 0.0) + now - self._stage_at
        self._stage_at = now

    def begin_part(self, start: float, end: float) -> None:
        """Begin a part of the work that has a pace of its own, from one progress of the whole job to another."""
        self._part = start, end
        self._work.begin_part(time.monotonic() - self._began, start, end)
        self.progress(start)

    def progress(self, progress: float, data: Mapping[str, Any] | None = None) -> None:
        """Record the progress of the whole job, 0 to 1; at most two records a second, and progress never decreases."""
        now = time.monotonic()
        self._work.report(now - self._began, progress)
        if progress <= self._progress or now < self._progress_at + PROGRESS_SECONDS:
            return
        self._progress, self._progress_at = min(progress, 1.0), now
        self._write_progress(data or {})

    def alive(self, doing: str | None = None) -> None:
        """Record a sign of life of the process that does the work; `doing` is its current work.

        It repeats the current progress, and is written only if there was no record for some seconds. It is skipped if
        the database is away.
        """
        self._doing = doing
        if time.monotonic() >= self._written_at + SIGN_SECONDS:
            self._write_progress({}, insist=False)

    def _write_progress(self, data: Mapping[str, Any], *, insist: bool = True) -> None:
        self._written_at = time.monotonic()
        details = {**data, **({} if self._doing is None else {"doing": self._doing})}
        left = self._work.seconds_left(self._written_at - self._began, self._estimated, self._deviation)
        if self._part is not None:
            details["part"] = self._part
        if left is not None:
            details["seconds_left"] = [round(seconds, 1) for seconds in left]
        self._checked(
            lambda session: queue.set_progress(session, self._job_id, self._attempt, self._progress, details),
            insist=insist,
        )

    def event(self, kind: EventType, data: Mapping[str, Any]) -> None:
        self._checked(lambda session: queue.append_event(session, self._job_id, self._attempt, kind, data))

    def read(self, query: Callable[[Session], Answer]) -> Answer:
        """Return the result of a query, with the same retries as a write."""
        answer = self._write(query)
        assert answer is not None
        return answer

    def end(self, write: Callable[[Session], Answer | None]) -> Answer:
        """Write the end of the attempt and return the job's new state; raises LeaseLost if the attempt is stale."""
        self.leave()
        self._trace_stage()
        answer = self._write(lambda session: write(session) if self._lease.holds(session) else None)
        if answer is None:
            self._lease.lose()
            raise LeaseLost
        return answer

    def _trace_stage(self) -> None:
        now = time.monotonic()
        telemetry.record(f"stage.{self._stage}", now - self._entered_at, parent=self._trace)
        self._entered_at = now

    def _checked(self, write: Callable[[Session], bool], *, insist: bool = True) -> None:
        if self._write(write, insist=insist) is False:
            self._lease.lose()
            raise LeaseLost

    def _write(self, write: Callable[[Session], Answer], *, insist: bool = True) -> Answer | None:
        """Write; with `insist` False, return None at once if the database is away, as the record is not essential."""
        wait = 0.1
        while self._lease.state != "lost":
            try:
                with transaction(self._sessions) as session:
                    return write(session)
            except DBAPIError as error:
                if (reason := transient_reason(error)) is None:
                    raise
                if not insist:
                    return None
                logger.warning("not written, trying again", fault=reason, error=str(error.orig))
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_RETRY_SECONDS)
        raise LeaseLost
