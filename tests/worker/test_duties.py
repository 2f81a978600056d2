"""Duties side by side: what hangs or stands still is noticed, and keeps nothing else waiting."""

import os
import signal
import subprocess
import sys
import threading

import psutil
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.duties.times import known_duties
from core.settings import Settings
from tests.worker.clocks import wrong_clock
from tests.worker.conftest import StartPart, eventually
from worker import alive
from worker.dispatcher.clock import Duty, DutyRun, go_round, make_duties

Sessions = sessionmaker[Session]


def noted(sessions: Sessions) -> dict[str, float]:
    """Return when each duty was done last."""
    with transaction(sessions) as session:
        return {row.name: row.succeeded_at.timestamp() for row in known_duties(session)}


def test_a_duty_that_hangs_grows_old_and_the_others_go_on(sessions: Sessions, settings: Settings) -> None:
    over, stop = threading.Event(), threading.Event()

    def fail(turn: DutyRun) -> None:
        raise ConnectionError("away")

    def work_long(turn: DutyRun) -> None:
        while not over.wait(0.05):
            turn.goes_well()

    duties = (
        Duty("hangs", 0.05, lambda turn: over.wait() or None),
        Duty("fails", 0.05, fail),
        Duty("works", 0.05, lambda turn: None),
        Duty("works long", 0.05, work_long),
    )
    often = settings.model_copy(update={"dispatch_interval_seconds": 0.05})
    clock = threading.Thread(target=go_round, args=(sessions, often, duties, stop))
    clock.start()
    try:
        eventually(lambda: len(noted(sessions)) == len(duties))
        first = noted(sessions)
        eventually(lambda: all(noted(sessions)[name] > first[name] for name in ("works", "works long")))
        later = noted(sessions)
    finally:
        stop.set()
        clock.join(60)
        over.set()
        for duty in duties:
            duty.wait(60)  # or it would tell of its success when this test's database is another's
    assert (later["hangs"], later["fails"]) == (first["hangs"], first["fails"])


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
    eventually(lambda: noted(sessions).keys() == named)
    before = noted(sessions)
    frequent = {"leases", "hints", "totals", "triggers", "webhooks", "sweeps", "publications 1"}
    eventually(lambda: all(noted(sessions)[name] > before[name] for name in frequent))
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
