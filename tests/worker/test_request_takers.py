"""Threads that take requests beside jobs: no request ends them, and a worker that lost one says so."""

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.discoveries.queue import ClaimedDiscovery
from core.service.discoveries.tables import DiscoveryRow
from core.settings import Settings
from tests.model_folders import write_alien
from tests.worker.conftest import eventually
from worker import alive
from worker.supervisor.discoverer import Discoverer
from worker.supervisor.drain import Drain
from worker.supervisor.heartbeat import Heartbeat


class Unready(Discoverer):
    """A taker whose looks raise what they are given; then there is nothing to take."""

    def __init__(self, settings: Settings, raised: list[BaseException]) -> None:
        super().__init__("worker_1", settings)
        self._poll_seconds, self.raised = 0.01, raised

    def claim(self, session: Session) -> ClaimedDiscovery | None:
        if self.raised:
            raise self.raised.pop(0)
        return None


def test_a_discovery_that_cannot_be_read_or_started_fails_and_does_not_hide_those_behind_it(
    api: TestClient, settings: Settings, sessions: sessionmaker[Session]
) -> None:
    discoverer = Discoverer("worker_1", settings, command=["\0"])
    assert not discoverer.take_next(sessions), "its version is known from here on"
    for name, width in (("first", 0.0), ("second", 1.0)):
        folder = write_alien(settings.models_root / name, time_step_limit=[width, 2.0]).absolute()
        assert api.post("/v1/models", json={"name": name, "path": str(folder)}).status_code == 201
    query = select(DiscoveryRow).order_by(DiscoveryRow.created_at)
    with transaction(sessions) as session:
        session.scalars(query).all()[0].content = "nothing"
    assert not discoverer.take_next(sessions), "the first is none to look at"
    for _ in range(settings.discovery_attempts):
        assert discoverer.take_next(sessions)
    with transaction(sessions) as session:
        first, second = session.scalars(query).all()
        assert first.state == second.state == "failed" and first.error is not None and second.error is not None
        assert "cannot be read" in first.error["message"] and "ValueError: embedded null" in second.error["message"]


def test_a_look_that_raises_is_not_the_last_one(settings: Settings) -> None:
    taker = Unready(settings, [KeyError("a row of another release"), RuntimeError("can't start new thread")])
    taker.start()
    eventually(lambda: not taker.raised)
    assert taker.is_running()
    taker.stop()
    taker.wait(120)
    assert taker.is_running(), "it was told to end"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_lost_a_thread_gives_no_more_signs_of_life(settings: Settings) -> None:
    taker = Unready(settings, [SystemExit()])

    def beat() -> float:
        heartbeat = Heartbeat(
            "worker_1", settings, Drain(), on_space=lambda: None, on_failure=lambda: None, is_running=taker.is_running
        )
        alive.forget(alive.WORKER, settings)
        heartbeat.start()
        heartbeat.stop(30)
        return alive.seconds_silent(alive.WORKER, settings)

    assert beat() < 60, "it is yet to start"
    taker.start()
    eventually(lambda: not taker.is_running())
    assert beat() == float("inf")
