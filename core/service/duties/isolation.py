"""Isolation of the rows of a duty: a failing row blocks no other.

A failing row is logged and counted, and skipped for a while, longer after each failure. After several failures in a row
it is parked: its object ends with the reason, which its team can read. A temporary failure (the database, the hub or a
quota refuses for now) only delays the row.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

import structlog
from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, TimeoutError
from sqlalchemy.orm import InstrumentedAttribute, Session, sessionmaker

from core.database import seconds_from_now, transaction, transient_reason
from core.service.duties.tables import RowFailureRow, RowFailureTotalRow
from core.service.duties.team_threads import TeamThreads
from secateur_wire.errors import InternalError, SecateurError, TooManyRequests, Unavailable

MOST_FAILURES: Final = 5
"""Failures in a row after which a row is parked."""
PAUSES: Final = (10.0, 60.0, 300.0, 900.0)
"""Seconds for which a row is skipped after its first failures."""
PASSING_SECONDS: Final = 20.0
"""Seconds for which a row is skipped after a temporary failure."""
_PARKED_SECONDS: Final = 24 * 3600.0
"""Seconds after which a row that could not be parked is tried again."""
_FORGET_SECONDS: Final = 7 * 24 * 3600.0
_MESSAGE_CHARACTERS: Final = 500

Result = TypeVar("Result")
Park = Callable[[str, Session, SecateurError], bool]
"""Function that ends the object of a row, given its id and the reason. False where it can only report the failure: the
row is then skipped for a day."""

log = structlog.get_logger()


@dataclass(frozen=True)
class RowTask(Generic[Result]):
    """Work on one row. Work that `waits` for the hub runs last, and in a thread of its team.

    Without `park`, a row is skipped for a day where others are parked.
    """

    row_id: str
    work: Callable[[], Result | None]
    park: Park | None = None
    team_id: str = ""
    waits: Callable[[], bool] = lambda: False


def is_passing(error: Exception) -> bool:
    """Return whether an error is temporary: of the database, an unavailable service, a quota or a rate limit."""
    if isinstance(error, DBAPIError):
        return transient_reason(error) is not None
    return isinstance(error, Unavailable | TooManyRequests | TimeoutError)


def is_tried(duty: str, row_id: InstrumentedAttribute[str] | ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that a row of the duty is not being skipped now."""
    is_paused = select(RowFailureRow.row_id).where(
        RowFailureRow.duty == duty, RowFailureRow.row_id == row_id, RowFailureRow.retry_at > func.clock_timestamp()
    )
    return ~is_paused.exists()


def forget_old_failures(session: Session) -> None:
    """Remove failures of rows that were not tried for long: the rows are gone, or another process has handled them."""
    session.execute(delete(RowFailureRow).where(RowFailureRow.retry_at < seconds_from_now(-_FORGET_SECONDS)))


class IsolatedRows:
    """Rows of one run of a duty, safe to share between threads. Errors of the classes in `ends` end the run."""

    def __init__(self, sessions: sessionmaker[Session], duty: str, *, ends: tuple[type[Exception], ...] = ()) -> None:
        self._sessions = sessions
        self._duty = duty
        self._ends = ends
        with transaction(sessions) as session:
            rows = session.scalars(select(RowFailureRow).where(RowFailureRow.duty == duty))
            self._failures = {row.row_id: row for row in rows}

    def last_failure(self, row_id: str) -> RowFailureRow | None:
        """Return the last failure of a row, as read when this run began."""
        return self._failures.get(row_id)

    def run_all(self, tasks: Iterable[RowTask[Result]], threads: TeamThreads | None = None) -> list[Result]:
        """Run tasks, and return the results of those that succeeded here.

        Tasks that wait for the hub come last. With `threads` they run there, and this call does not wait for them.
        """
        results: list[Result | None] = []
        later: list[RowTask[Result]] = []
        for task in tasks:
            try:
                waits = task.waits()
            except Exception as error:
                self._note(task.row_id, error, task.park)
                continue
            if waits:
                later.append(task)
            else:  # At once: what `waits` has read for it is not held for all tasks together.
                results.append(self.run(task))
        for task in later:
            if threads is None:
                results.append(self.run(task))
            else:
                threads.start(task.team_id, (self._duty, task.row_id), partial(self.run, task))
        return [result for result in results if result is not None]

    def run(self, task: RowTask[Result]) -> Result | None:
        """Run one task; None where it failed."""
        try:
            result = task.work()
        except Exception as error:
            self._note(task.row_id, error, task.park)
            return None
        if task.row_id in self._failures:
            with transaction(self._sessions) as session:
                self._forget(session, task.row_id)
        return result

    def run_together(
        self,
        work: Callable[[Session, str | None], Result],
        due: Callable[[Session], Sequence[str]],
        park: Park | None = None,
    ) -> list[Result]:
        """Run `work` on all rows in one transaction. If that fails, run it on each of the `due` rows by itself.

        Returns the result of `work`. Raises its temporary errors.
        """
        try:
            with transaction(self._sessions) as session:
                return [work(session, None)]
        except Exception as error:
            if is_passing(error):
                raise
            log.warning("rows are done one by one", duty=self._duty, error=type(error).__name__)
        with transaction(self._sessions) as session:
            row_ids = due(session)
        return self.run_all(RowTask(row_id, partial(self._run_alone, work, row_id), park) for row_id in row_ids)

    def _run_alone(self, work: Callable[[Session, str | None], Result], row_id: str) -> Result:
        with transaction(self._sessions) as session:
            return work(session, row_id)

    def _note(self, row_id: str, error: Exception, park: Park | None) -> None:
        """Record a failure. Raises errors that end the run, such as those of an unavailable database."""
        if isinstance(error, self._ends):
            raise error
        passes = is_passing(error)
        if passes:
            log.info("row waits", duty=self._duty, row=row_id, error=_message(error))
        else:
            log.error("row failed", duty=self._duty, row=row_id, exc_info=error)
        with transaction(self._sessions) as session:
            failures = self._count(session, row_id, error, passes=passes)
        if not passes and failures >= MOST_FAILURES:
            self._park(row_id, error, park)

    def _count(self, session: Session, row_id: str, error: Exception, *, passes: bool) -> int:
        failure = session.get(RowFailureRow, (self._duty, row_id))
        failures = (0 if failure is None else failure.failures) + (not passes)
        pause = PASSING_SECONDS if passes else PAUSES[min(failures, len(PAUSES)) - 1]
        self._write(session, row_id, _message(error), failures, pause)
        if not passes:
            self._add(session, failures=1)
        return failures

    def _park(self, row_id: str, error: Exception, park: Park | None) -> None:
        reason = error if isinstance(error, SecateurError) else InternalError(_message(error))
        reason.message = f"{MOST_FAILURES} times in a row: {reason.message}"
        try:
            with transaction(self._sessions) as session:
                self._add(session, parked=1)
                if park is not None and park(row_id, session, reason):
                    self._forget(session, row_id)
                else:
                    self._write(session, row_id, reason.message, 0, _PARKED_SECONDS)
        except Exception as failure:
            log.error("row not parked", duty=self._duty, row=row_id, exc_info=failure)
            with transaction(self._sessions) as session:
                self._write(session, row_id, reason.message, 0, _PARKED_SECONDS)
            return
        log.error("row parked", duty=self._duty, row=row_id, reason=reason.message)

    def _write(self, session: Session, row_id: str, message: str, failures: int, pause: float) -> None:
        values = {
            "failures": failures,
            "error": message,
            "failed_at": func.clock_timestamp(),
            "retry_at": seconds_from_now(pause),
        }
        session.execute(
            insert(RowFailureRow)
            .values(duty=self._duty, row_id=row_id, **values)
            .on_conflict_do_update(index_elements=["duty", "row_id"], set_=values)
        )

    def _forget(self, session: Session, row_id: str) -> None:
        session.execute(delete(RowFailureRow).where(RowFailureRow.duty == self._duty, RowFailureRow.row_id == row_id))

    def _add(self, session: Session, *, failures: int = 0, parked: int = 0) -> None:
        new = insert(RowFailureTotalRow).values(duty=self._duty, failures=failures, parked=parked)
        total = {
            "failures": RowFailureTotalRow.failures + failures,
            "parked": RowFailureTotalRow.parked + parked,
        }
        session.execute(new.on_conflict_do_update(index_elements=["duty"], set_=total))


def _message(error: Exception) -> str:
    """Return the error message that a team may read: for an error of another library, only its class."""
    message = error.message if isinstance(error, SecateurError) else None
    if message is None:
        message = f"an unexpected error ({type(error).__name__}); the dispatcher's log has it"
    return message.replace("\0", "�")[:_MESSAGE_CHARACTERS]
