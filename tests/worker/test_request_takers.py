"""Threads that take requests beside jobs: no request ends them, and a worker that lost one says so."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.discoveries.tables import DiscoveryRow
from core.settings import Settings
from tests.model_folders import write_alien
from tests.worker.conftest import eventually
from worker import alive
from worker.supervisor.discoverer import Discoverer
from worker.supervisor.drain import Drain
from worker.supervisor.heartbeat import Heartbeat
from worker.supervisor.request_taker import RequestTaker

CANNOT_START = ["\0"]
"""A command for which `subprocess` raises ValueError."""


class Unready(RequestTaker[str]):
    """A taker whose looks raise what they are given; then there is nothing to take."""

    def __init__(self, settings: Settings, raised: list[BaseException]) -> None:
        super().__init__("unready", settings, 0.01)
        self.raised = raised

    def claim(self, session: Session) -> str | None:
        if self.raised:
            raise self.raised.pop(0)
        return None

    def facts(self, claimed: str) -> Mapping[str, str]:
        raise AssertionError("nothing is claimed")

    def fulfil(self, sessions: sessionmaker[Session], claimed: str, on_wait: Callable[[], None]) -> None:
        raise AssertionError("nothing is claimed")

    def release(self, session: Session, claimed: str) -> None:
        raise AssertionError("nothing is claimed")

    def fail(self, session: Session, claimed: str, error: Exception) -> None:
        raise AssertionError("nothing is claimed")


@contextmanager
def running(taker: RequestTaker[str]) -> Iterator[None]:
    taker.start()
    try:
        yield
    finally:
        taker.stop()
        taker.wait(120)


def test_a_discovery_that_raises_what_nobody_foresaw_fails_for_good_after_its_attempts(
    api: TestClient, settings: Settings, sessions: sessionmaker[Session]
) -> None:
    alien = write_alien(settings.models_root / "alien").absolute()
    discoverer = Discoverer("worker_1", settings, command=CANNOT_START)
    assert not discoverer.take_next(sessions), "its version is known from here on"
    assert api.post("/v1/models", json={"name": "alien", "path": str(alien)}).status_code == 201
    for _ in range(settings.discovery_attempts):
        assert discoverer.take_next(sessions)
    with transaction(sessions) as session:
        row = session.scalars(select(DiscoveryRow)).one()
        assert row.state == "failed" and row.error is not None
        assert "ValueError: embedded null byte" in row.error["message"]


def test_a_discovery_that_cannot_be_read_does_not_hide_those_behind_it(
    api: TestClient, settings: Settings, sessions: sessionmaker[Session]
) -> None:
    discoverer = Discoverer("worker_1", settings, command=[sys.executable, "-c", "print('nothing')"])
    assert not discoverer.take_next(sessions)
    for name, width in (("first", 0.0), ("second", 1.0)):
        folder = write_alien(settings.models_root / name, time_step_limit=[width, 2.0]).absolute()
        assert api.post("/v1/models", json={"name": name, "path": str(folder)}).status_code == 201
    with transaction(sessions) as session:
        rows = session.scalars(select(DiscoveryRow).order_by(DiscoveryRow.created_at)).all()
        assert len(rows) == 2
        rows[0].content = "nothing"
    assert not discoverer.take_next(sessions), "the first is none to look at"
    assert discoverer.take_next(sessions)
    with transaction(sessions) as session:
        first, second = session.scalars(select(DiscoveryRow).order_by(DiscoveryRow.created_at)).all()
        assert first.state == "failed" and first.error is not None and "cannot be read" in first.error["message"]
        assert (second.state, second.attempts) == ("waiting", 1)


def test_a_look_that_raises_is_not_the_last_one(settings: Settings) -> None:
    taker = Unready(settings, [KeyError("a row of another release"), RuntimeError("can't start new thread")])
    with running(taker):
        eventually(lambda: not taker.raised)
        assert taker.is_running()
    assert taker.is_running(), "it was told to end"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_lost_a_thread_gives_no_more_signs_of_life(
    settings: Settings, sessions: sessionmaker[Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taker = Unready(settings, [SystemExit()])
    assert taker.is_running(), "it is yet to start"

    def beat() -> float:
        heartbeat = Heartbeat(
            "worker_1", settings, Drain(), on_space=lambda: None, on_failure=lambda: None, is_running=taker.is_running
        )
        alive.forget(alive.WORKER, settings)
        heartbeat.start()
        heartbeat.stop(30)
        return alive.seconds_silent(alive.WORKER, settings)

    assert beat() < 60
    taker.start()
    eventually(lambda: not taker.is_running())
    assert beat() == float("inf")
