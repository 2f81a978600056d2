"""Readiness checks of the required services, run at most every few seconds for any number of callers."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import structlog
from celery import Celery
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.broker import broker_answers
from core.service.jobs.queue import fresh_workers
from core.storage import Store

CACHED_SECONDS = 2.0
ANSWER_SECONDS = 3.0
"""Longest wait of a caller; a service that has not answered by then counts as unavailable."""
_DATABASE = ("database", "workers", "devices")

log = structlog.get_logger()


@dataclass(frozen=True)
class Checked:
    """Results of the readiness checks; `unanswered` names those that gave no answer in time."""

    checks: Mapping[str, bool]
    unanswered: frozenset[str]


class ReadinessChecks:
    """Readiness checks with results that are cached for a moment.

    A caller that comes during a check waits for its result, without a thread. So a slow database, store or broker is
    asked once at a time, and one that hangs holds only the thread of its own check.
    """

    def __init__(
        self, sessions: sessionmaker[Session], store: Store, broker: Celery, *, worker_fresh_seconds: float
    ) -> None:
        self._sessions = sessions
        self._worker_fresh_seconds = worker_fresh_seconds
        self._questions = (
            _Question(_DATABASE, self._ask_database),
            _Question(("broker",), lambda: {"broker": broker_answers(broker)}),
            _Question(("store",), lambda: {"store": store.is_usable()}),
        )

    async def check(self) -> Checked:
        """Return whether each is available: database, broker, store, workers, devices."""
        answers = await asyncio.gather(*(question.answer(ANSWER_SECONDS) for question in self._questions))
        checks: dict[str, bool] = {}
        unanswered: set[str] = set()
        for question, answer in zip(self._questions, answers, strict=True):
            checks |= dict.fromkeys(question.names, False) if answer is None else answer
            unanswered |= set(question.names[:1]) if answer is None else set()
        return Checked(checks, frozenset(unanswered))

    def _ask_database(self) -> Mapping[str, bool]:
        try:
            with transaction(self._sessions) as session:
                fresh = fresh_workers(session, self._worker_fresh_seconds)
        except SQLAlchemyError:
            return dict.fromkeys(_DATABASE, False)
        return {"database": True, "workers": fresh.up > 0, "devices": fresh.failed == 0}


class _Question:
    """Question in a thread of its own, asked again once its answer is old; `names` are its results."""

    def __init__(self, names: tuple[str, ...], ask: Callable[[], Mapping[str, bool]]) -> None:
        self.names = names
        self._ask = ask
        self._lock = threading.Lock()
        self._newest: Future[Mapping[str, bool]] | None = None
        self._asked_at = self._answered_at = 0.0

    async def answer(self, seconds: float) -> Mapping[str, bool] | None:
        """Return the results, None where none came within `seconds` of the question."""
        answer = asyncio.wrap_future(self._put())
        await asyncio.wait({answer}, timeout=max(0.0, self._asked_at + seconds - time.monotonic()))
        return answer.result() if answer.done() else None

    def _put(self) -> Future[Mapping[str, bool]]:
        """Ask the question, unless it is being asked or was answered a moment ago."""
        with self._lock:
            newest, now = self._newest, time.monotonic()
            if newest is None or (newest.done() and now >= self._answered_at + CACHED_SECONDS):
                newest = self._newest = Future()
                # A running future cannot be cancelled: a caller that disconnects leaves the answer to the others.
                newest.set_running_or_notify_cancel()
                self._asked_at = now
                threading.Thread(target=self._run, args=(newest,), name=f"ready {self.names[0]}", daemon=True).start()
            return newest

    def _run(self, answered: Future[Mapping[str, bool]]) -> None:
        try:
            answer = self._ask()
        except Exception as error:  # Each transport raises errors of its own.
            log.warning("no answer", of=self.names[0], error=str(error).partition("\n")[0])
            answer = dict.fromkeys(self.names, False)
        self._answered_at = time.monotonic()
        answered.set_result(answer)
