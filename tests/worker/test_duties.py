"""Duties side by side: what hangs or stands still is noticed, and keeps nothing else waiting."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.orm import Session, sessionmaker

import api.process.metrics
from core.database import transaction
from core.service.duties.times import known_duties
from core.settings import Settings
from tests.worker.clocks import wrong_clock
from tests.worker.conftest import StartPart, eventually
from worker import alive
from worker.dispatcher.clock import Duty, DutyRun, go_round, make_duties

SUCCESS = "secateur_dispatcher_duty_last_success_timestamp_seconds"
Sessions = sessionmaker[Session]


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """Yield what a duty waits for that hangs."""
    over = threading.Event()
    yield over
    over.set()


def done(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return what Prometheus is told of each duty."""
    monkeypatch.setattr(api.process.metrics, "CACHED_SECONDS", 0.0)
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {each.labels["duty"]: each.value for family in families for each in family.samples if each.name == SUCCESS}


def test_a_duty_that_hangs_grows_old_and_the_others_go_on(
    api_client: TestClient,
    sessions: Sessions,
    settings: Settings,
    hanging: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns: list[DutyRun] = []

    def fail(turn: DutyRun) -> None:
        raise ConnectionError("away")

    def work_long(turn: DutyRun) -> None:
        while not hanging.wait(0.05):
            turn.goes_well()

    duties = (
        Duty("hangs", 0.05, lambda turn: hanging.wait() or None),
        Duty("fails", 0.05, fail),
        Duty("works", 0.05, lambda turn: turns.append(turn)),
        Duty("works long", 0.05, work_long),
    )
    stop = threading.Event()
    often = settings.model_copy(update={"dispatch_interval_seconds": 0.05})
    clock = threading.Thread(target=go_round, args=(sessions, often, duties, stop))
    clock.start()

    def all_known() -> dict[str, float] | None:
        seen = done(api_client, monkeypatch)
        return seen if len(seen) == len(duties) else None

    first = eventually(all_known)
    ran = len(turns)

    def others_went_on() -> dict[str, float] | None:
        now = done(api_client, monkeypatch)
        return now if len(turns) > ran and all(now[name] > first[name] for name in ("works", "works long")) else None

    later = eventually(others_went_on)
    stop.set()
    clock.join(60)
    hanging.set()
    for duty in duties:
        duty.wait(60)  # or it would tell of its success when this test's database is another's
    assert (later["hangs"], later["fails"]) == (first["hangs"], first["fails"])
    assert abs(later["works"] - time.time()) < 60


def is_healthy(settings: Settings) -> bool:
    """Ask as a container is asked."""
    environment = {**os.environ, "SECATEUR_HOME": str(settings.home), "SECATEUR_DISPATCH_INTERVAL_SECONDS": "0.1"}
    return subprocess.run([sys.executable, "-m", "worker.alive", "dispatcher"], env=environment).returncode == 0


def test_two_dispatchers_share_the_work_and_one_that_is_frozen_is_not_healthy(
    sessions: Sessions, settings: Settings, start_part: StartPart
) -> None:
    assert not is_healthy(settings), "there is none yet"
    first = start_part("dispatcher", SECATEUR_DISPATCH_INTERVAL_SECONDS="0.1")
    eventually(lambda: is_healthy(settings))
    os.kill(first.pid, signal.SIGSTOP)
    eventually(lambda: alive.seconds_silent("dispatcher", settings) > 3)
    assert not is_healthy(settings)

    second = start_part("dispatcher", SECATEUR_DISPATCH_INTERVAL_SECONDS="0.1")
    os.kill(first.pid, signal.SIGCONT)
    eventually(lambda: is_healthy(settings))
    named = {duty.name for duty in make_duties(sessions, settings)}

    def noted() -> dict[str, float]:
        with transaction(sessions) as session:
            return {row.name: row.succeeded_at.timestamp() for row in known_duties(session)}

    eventually(lambda: noted().keys() == named)
    before = noted()
    frequent = {"leases", "hints", "totals", "triggers", "webhooks", "sweeps", "publications 1"}
    eventually(lambda: all(noted()[name] > before[name] for name in frequent))
    log = (settings.home / "dispatcher.log").read_text()
    assert "duty failed" not in log and first.is_running() and second.is_running(), log
    first.send(signal.SIGTERM)
    assert first.wait(60) == 0


def test_a_process_that_hangs_is_ended_and_its_container_with_it(settings: Settings) -> None:
    """A shell takes the place of the container's init: it ends as its only child does."""
    command = f"SECATEUR_HOME={settings.home} {sys.executable} -m worker.dispatcher; exit $?"
    environment = {**os.environ, "SECATEUR_DATABASE_URL": str(settings.database_url)}
    with subprocess.Popen(["bash", "-c", command], env=environment) as init:
        eventually(lambda: alive.seconds_silent("dispatcher", settings) < 60)
        [dispatcher] = psutil.Process(init.pid).children()
        dispatcher.suspend()
        alive.end_container(init.pid)
        assert init.wait(60) == 128 + signal.SIGKILL


def test_a_clock_that_jumps_makes_no_process_silent(settings: Settings) -> None:
    alive.touch("dispatcher", settings)
    environment = {**os.environ, **wrong_clock("+3600"), "SECATEUR_HOME": str(settings.home)}
    done = subprocess.run([sys.executable, "-m", "worker.alive", "dispatcher"], env=environment, stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stdout
