"""Answers to what the service needs, asked for now and then however many ask."""

import threading
import time
from collections.abc import Mapping

from celery import Celery
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.broker import broker_answers
from core.service.jobs.queue import fresh_workers
from core.storage import Store

CACHED_SECONDS = 2.0


class ReadinessChecks:
    """Results of the readiness checks, cached for a moment.

    A caller that comes while they are being made waits for them: a database or broker that is slow is not asked by
    every prober at once.
    """

    def __init__(
        self, sessions: sessionmaker[Session], store: Store, broker: Celery, *, worker_fresh_seconds: float
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._broker = broker
        self._worker_fresh_seconds = worker_fresh_seconds
        self._lock = threading.Lock()
        self._checks: Mapping[str, bool] = {}
        self._asked_at = -CACHED_SECONDS

    def checks(self) -> Mapping[str, bool]:
        """Return whether each is as it should be: database, broker, store, workers, devices."""
        with self._lock:
            if time.monotonic() >= self._asked_at + CACHED_SECONDS:
                self._checks = self._ask()
                self._asked_at = time.monotonic()
            return self._checks

    def _ask(self) -> Mapping[str, bool]:
        database, workers, devices = False, False, False
        try:
            with transaction(self._sessions) as session:
                fresh = fresh_workers(session, self._worker_fresh_seconds)
                database, workers, devices = True, fresh.up > 0, fresh.failed == 0
        except SQLAlchemyError:
            pass  # what is not there stays False
        return {
            "database": database,
            "broker": broker_answers(self._broker),
            "store": self._store.is_usable(),
            "workers": workers,
            "devices": devices,
        }
