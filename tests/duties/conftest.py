"""The duties of a dispatcher, run by hand, and rows that no duty can do."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.logs import configure_logs
from core.service.duties.isolation import MOST_FAILURES
from core.service.duties.tables import RowFailureRow
from core.service.duties.team_threads import THREAD_NAME
from core.service.duties.times import failed_rows
from core.settings import Settings
from tests.jobs.conftest import new_job
from tests.triggers.conftest import member_api, trigger_body
from worker.dispatcher.clock import DutyRun, make_duties

__all__ = ["member_api", "new_job", "trigger_body"]


@dataclass
class Dispatcher:
    """A dispatcher whose duties are run one at a time; whatever a duty raises fails the test."""

    sessions: sessionmaker[Session]
    settings: Settings

    def __post_init__(self) -> None:
        self._duties = {duty.name: duty for duty in make_duties(self.sessions, self.settings)}

    def run(self, duty: str) -> int | None:
        return self._duties[duty].run(DutyRun(self.sessions, self.settings))

    def run_until_parked(self, duty: str, between: Callable[[], None] = lambda: None) -> None:
        """Run a duty as often as a row has to fail to be parked, without its pauses."""
        for _ in range(MOST_FAILURES - 1):
            self.execute("UPDATE row_failures SET retry_at = now()")
            between()
            self.run(duty)

    def execute(self, statement: str, **values: Any) -> list[Any]:
        with transaction(self.sessions) as session:
            result = session.execute(text(statement), values)
            return list(result) if result.returns_rows else []  # type: ignore[attr-defined]

    def failures(self) -> dict[str, int]:
        """Return how often rows failed that were not done since, by id."""
        return dict(self.execute("SELECT row_id, failures FROM row_failures"))

    def totals(self, duty: str) -> tuple[int, int]:
        """Return how many failures were counted, and how many rows were parked."""
        with transaction(self.sessions) as session:
            return next(((each.failures, each.parked) for each in failed_rows(session) if each.duty == duty), (0, 0))

    def last(self, row_id: str) -> RowFailureRow:
        with transaction(self.sessions) as session:
            return next(row for row in session.query(RowFailureRow) if row.row_id == row_id)

    def refuse_writes(self, table: str, event: str, condition: str, state: str = "P0001") -> None:
        """Have the database refuse to write rows; unless `state` says otherwise for a reason that does not pass."""
        self.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$BEGIN RAISE EXCEPTION 'poisoned' USING ERRCODE = '{state}'; END$$"
        )
        self.execute(
            f"CREATE TRIGGER poison BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse()"
        )

    def accept_writes(self) -> None:
        self.execute("DROP FUNCTION IF EXISTS refuse CASCADE")


@pytest.fixture
def dispatcher(sessions: sessionmaker[Session], settings: Settings) -> Iterator[Dispatcher]:
    configure_logs(settings)
    dispatcher = Dispatcher(sessions, settings)
    yield dispatcher
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join(60)
    dispatcher.accept_writes()
